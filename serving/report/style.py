"""The page's style sheet: light and dark, on a screen and on paper. Nothing is loaded."""

from typing import Final

__all__ = ["STYLE"]

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #667085; --paper: #f6f8fa;
  --card: #fff; --line: #dde3ea; --grid: #e8ecf1; --reference: #cbd3dd;
  --production: #2f6fd0; --canary: #d98a00; --shadow: #8a63c9; --other: #0f8b8d;
  --good: #18794e; --inform: #0b7285; --alert: #b45309; --trigger: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ee; --dim: #93a0b3; --paper: #0f1318;
  --card: #171d25; --line: #2c3542; --grid: #232b36; --reference: #414c5b;
  --production: #5b9bf8; --canary: #f0b44c; --shadow: #b394ee; --other: #4cc3c5;
  --good: #5fd6a0; --inform: #5ccfe0; --alert: #f5a94d; --trigger: #ff8a80 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 78rem;
  padding: 1.5rem 1rem 3rem; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem } h4 { font-size: .95rem; margin: 0; font-weight: 600 }
p { margin: .3rem 0 } code { font-family: ui-monospace, monospace; font-size: .92em }
ul { margin: .3rem 0; padding-left: 1.2rem } .dim { color: var(--dim); font-size: .9em }
.none { --level: var(--good) } .inform { --level: var(--inform) }
.alert { --level: var(--alert) } .trigger { --level: var(--trigger) }
.production { --arm: var(--production) } .canary { --arm: var(--canary) }
.shadow { --arm: var(--shadow) } .other { --arm: var(--other) }
.reference { --arm: var(--reference) } .standsout, .bad { --arm: var(--trigger) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .9rem; overflow-x: auto; break-inside: avoid }
.verdicts { display: grid; gap: .7rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(23rem, 100%), 1fr)) }
.verdict { border-left: .4rem solid var(--level) }
.verdict header { display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: center }
.level { color: var(--level); border: 1px solid; border-radius: 1rem; padding: 0 .6rem;
  font-weight: 600; font-size: .9em; white-space: nowrap }
.who { border-bottom: 3px solid var(--arm); font-weight: 600 }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr));
  gap: .7rem }
.tall { grid-row: span 2 }
.cards .card header { display: flex; justify-content: space-between; gap: .5rem;
  align-items: baseline; overflow-wrap: anywhere }
.cards .moved { color: var(--level); font-size: .87em; min-height: 1.4em }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word }
td code { white-space: nowrap } .since { white-space: nowrap }
tr:last-child > td { border-bottom: 0 }
thead th { color: var(--dim); font-weight: 500; font-size: .87em; white-space: nowrap }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9em; margin: .3rem 0 }
.legend i { display: inline-block; width: .9rem; height: .7rem; border-radius: .15rem;
  margin-right: .4rem; background: var(--arm); overflow: hidden }
.legend .earlier, .who.earlier { opacity: .6 }
svg { display: block; width: 100%; height: auto; overflow: visible }
.strip { display: inline-block; vertical-align: middle; max-width: 100% }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif }
svg .label { fill: var(--dim); font-size: 10px; font-variant-numeric: tabular-nums }
svg .head { font-weight: 600 }
.grid { stroke: var(--grid) } .zebra { fill: var(--grid); opacity: .5 }
.bar { fill: var(--arm) } .bin .hover { fill: transparent }
.bin:hover .hover { fill: var(--grid) }
.mark { stroke: var(--arm); stroke-width: 2.2 }
.line { fill: none; stroke: var(--arm); stroke-width: 1.7; stroke-linejoin: round }
.line.thin { stroke-width: 1; opacity: .6 } .earlier .line, .mark.earlier { stroke-dasharray: 4 3 }
.earlier .bar { opacity: .55 }
.band { fill: var(--arm); opacity: .11 } .production .band { opacity: .2 }
.dot { fill: var(--arm) } .dot.quiet { opacity: .55 }
.whisker { stroke: var(--arm); stroke-width: 1.8 } .whisker.ink { stroke: var(--ink) }
.threshold { stroke: var(--dim); stroke-dasharray: 4 3 }
.cell { fill: var(--dim) } .cell.drifted { fill: var(--alert) }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .8rem;
  color: var(--dim); font-size: .9em }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 }
dd { margin: 0; overflow-wrap: anywhere }
@media print { :root { color-scheme: light; --ink: #000; --dim: #444; --paper: #fff; --card: #fff;
    --line: #ccc; --grid: #e4e4e4; --reference: #c4ccd6; --production: #2f6fd0; --canary: #b87500;
    --shadow: #7a55b8; --other: #0f8b8d; --good: #18794e; --inform: #0b7285; --alert: #b45309;
    --trigger: #b3261e }
  body { padding: 0; font-size: 11px; print-color-adjust: exact; -webkit-print-color-adjust: exact }
  td, td code { white-space: normal; overflow-wrap: anywhere }
  .cards { grid-template-columns: repeat(2, 1fr) } h2, h3 { break-after: avoid } }
"""
