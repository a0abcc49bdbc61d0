"""What overrides and the fallback must agree with: versions, the key, tokens, the deadline."""

import hashlib
from pathlib import Path

import pytest

from serving.config.check import require_valid
from serving.errors import InvalidConfig

ONNX = b"not really a model"
DIGEST = hashlib.sha256(ONNX).hexdigest()


def findings(
    folder: Path, traffic: str, *, tenants: str | None = "acme", entity: str = ""
) -> list[str]:
    """Problems of a model with these lines under `traffic`; a token for each of `tenants`."""
    (folder / "models").mkdir()
    (folder / "v.onnx").write_bytes(ONNX)
    (folder / "models" / "m.yaml").write_text(
        "schema_version: 1\nmodel: m\nversions:\n"
        f"  v1: {{path: ../v.onnx, sha256: {DIGEST}}}\n"
        f"entity: {{user: {entity or 'INT64'}}}\n"
        f"traffic:\n  production: v1\n{traffic}\n"
    )
    gateway = "schema_version: 1\n"
    if tenants is not None:
        gateway += "auth: {tokens: tokens.yaml}\n"
        lines = ["tokens:"]
        for number, tenant in enumerate(tenants.split()):
            owner = "" if tenant == "-" else f", tenant: {tenant}"
            digest = hashlib.sha256(bytes([number])).hexdigest()
            lines.append(f"  - {{name: t{number}, sha256: {digest}, roles: [infer]{owner}}}")
        (folder / "tokens.yaml").write_text("\n".join(lines) + "\n")
        (folder / "tokens.yaml").chmod(0o600)
    (folder / "gateway.yaml").write_text(gateway)
    try:
        _, warnings = require_valid(folder)
    except InvalidConfig as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in warnings]


def overrides(*lines: str) -> str:
    """A key, and one override per line."""
    listed = "\n".join(f"    - {{{line}}}" for line in lines)
    return f"  assignment: {{key: user}}\n  overrides:\n{listed}"


def test_one_of_each_kind_is_fine(tmp_path: Path) -> None:
    """By header, by tenant and by entity, beside each other."""
    plan = overrides(
        "header: x-v, roles: [operator]",
        "tenants: [acme], reason: contract",
        "entities: [1, 2], version: v1",
    )

    assert findings(tmp_path, plan, tenants="acme -") == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tenants: [acme], entities: [1]", "an override goes by one of them"),
        ("header: x-v, tenants: [acme]", "an override goes by one of them"),
        ("tenants: [acme], version: v9", "`v9` is none of `versions`"),
        ("tenants: [acme], roles: [admin]", "this override goes by `tenants`"),
        ("tenants: []", "names nobody"),
        ("header: x-v, version: v1", "the header's value names the version"),
        ("entities: [x]", "`x` is no integer"),
        ("header: host", "has a meaning of its own"),
    ],
)
def test_an_override_that_cannot_be_meant_is_refused(tmp_path: Path, line: str, said: str) -> None:
    """The error says what, and where."""
    [problem] = findings(tmp_path, overrides(line), tenants="acme -")

    assert "error: traffic.overrides[0]" in problem
    assert said in problem


def test_entities_need_a_key_to_be_compared_with(tmp_path: Path) -> None:
    """Without an assignment key no request would ever be theirs."""
    [problem] = findings(tmp_path, "  overrides: [{entities: [1]}]")

    assert "requests have no assignment key" in problem


def test_entities_of_a_text_key_are_any_text(tmp_path: Path) -> None:
    """Only where the key is an integer must they be."""
    assert findings(tmp_path, overrides("entities: [x, 7]"), entity="BYTES") == []


def test_tenants_need_tokens(tmp_path: Path) -> None:
    """Where everybody is anonymous nobody has a tenant."""
    [problem] = findings(tmp_path, overrides("tenants: [acme]"), tenants=None)

    assert "no caller has a tenant" in problem


def test_a_tenant_that_no_token_has_is_a_warning(tmp_path: Path) -> None:
    """Its token may come later, or its name is misspelt."""
    [problem] = findings(tmp_path, overrides("tenants: [acmee]"), tenants="acme -")

    assert "warning: traffic.overrides[0].tenants[0]" in problem
    assert "did you mean `acme`?" in problem


def test_overrides_that_leave_nobody_to_be_drawn_are_a_warning(tmp_path: Path) -> None:
    """A rollout would wait for evidence that cannot come."""
    [problem] = findings(tmp_path, overrides("tenants: [acme, beta]"), tenants="acme beta")

    assert "warning: traffic.overrides" in problem
    assert "nobody is left" in problem


def test_analysed_overrides_starve_nobody(tmp_path: Path) -> None:
    """Their requests count."""
    plan = overrides("tenants: [acme], analysed: true")

    assert findings(tmp_path, plan, tenants="acme") == []


def test_a_reserve_must_leave_the_canary_time(tmp_path: Path) -> None:
    """As long as the whole deadline it leaves none."""
    plan = "  fallback: {on_canary_error: production, reserve: 1s}"

    [problem] = findings(tmp_path, plan)

    assert "traffic.fallback.reserve: not less than the deadline, 1s" in problem


def test_a_fallback_without_a_budget_is_a_warning(tmp_path: Path) -> None:
    """It would never be used."""
    [problem] = findings(tmp_path, "  fallback: {on_canary_error: production, budget: 0}")

    assert "warning: traffic.fallback.budget" in problem
