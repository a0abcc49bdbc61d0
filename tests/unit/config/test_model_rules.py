"""What must hold between the parts of a model's file and its views."""

from pathlib import Path

import pytest
from config_rules_kit import (
    DIGEST,
    OTHER_DIGEST,
    VIEW,
    Edit,
    edit,
    findings,
    sound_directory,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory without a mistake."""
    return sound_directory(tmp_path)


def test_a_sound_directory_has_no_findings(root: Path) -> None:
    """Neither errors nor warnings."""
    assert findings(root) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("production: v1", "production: v3"),
            "10:15: error: traffic.production: `v3` is none of `versions` (known here: `v1`, `v2`)",
        ),
        (
            ("canary: {version: v2", "canary: {version: w"),
            (
                "11:21: error: traffic.canary.version: `w` is none of `versions` "
                "(known here: `v1`, `v2`)"
            ),
        ),
        (
            ("canary: {version: v2", "canary: {version: v1"),
            "11:21: error: traffic.canary.version: `v1` is production already",
        ),
        (
            ("  canary: {version: v2, weight: 5}", "  shadow: [{version: v2}, {version: v2}]"),
            "11:37: error: traffic.shadow[1].version: `v2` is also shadow[0] (keep one of them)",
        ),
        (
            ("  canary: {version: v2, weight: 5}", "  shadow: [{version: v1}]"),
            (
                "11:22: error: traffic.shadow[0].version: `v1` is production; copying to it would "
                "answer twice"
            ),
        ),
        (
            ("key: person_id", "key: person"),
            (
                "12:21: error: traffic.assignment.key: `person` is none of `entity` "
                "(did you mean `person_id`?)"
            ),
        ),
        (
            ("{key: person_id}", "{key: person_id, header: x-user}"),
            (
                "12:40: error: traffic.assignment.header: either `key` or `header` decides "
                "(leave one of them out)"
            ),
        ),
        (
            ("{key: person_id}", "{on_missing_key: reject}"),
            (
                "12:32: error: traffic.assignment.on_missing_key: every request would be rejected "
                "(name a `key` or `header`)"
            ),
        ),
        (
            ("{key: person_id}", "{header: content-length}"),
            (
                "12:24: error: traffic.assignment.header: `content-length` has a meaning of its "
                "own in HTTP or gRPC (use another header, such as `x-sluice-version`)"
            ),
        ),
        (
            ("{key: person_id}", "{header: x-key-bin}"),
            (
                "12:24: error: traffic.assignment.header: gRPC takes metadata whose key ends in "
                "`-bin` for binary data (use another name)"
            ),
        ),
        (
            ("{key: person_id}", "{header: x-sluice-version}\n  overrides: [{}]"),
            (
                "13:15: error: traffic.overrides[0].header: `x-sluice-version` already assigns "
                "versions (use another header)"
            ),
        ),
        (
            ("{key: person_id}", "{key: person_id}\n  overrides: [{}, {}]"),
            (
                "13:19: error: traffic.overrides[1].header: `x-sluice-version` is also "
                "overrides[0], which wins (keep one of them)"
            ),
        ),
        (
            ("[person.*]", "[persn.*]"),
            "8:18: error: inputs.X.features[0]: there is no view `persn` (did you mean `person`?)",
        ),
        (
            ("[person.*]", "[person.AGE]"),
            (
                "8:18: error: inputs.X.features[0]: the view `person` has no field `AGE` "
                "(did you mean `AGEP`?)"
            ),
        ),
        (
            ("[person.*]", "[person]"),
            (
                "8:18: error: inputs.X.features[0]: `person` is no feature "
                "(write `view.field` or `view.*`)"
            ),
        ),
        (
            ("[person.*]", "[person.*, person.AGEP]"),
            (
                "8:28: error: inputs.X.features[1]: the name `AGEP` is taken by person.AGEP of "
                "inputs.X (clients send features under their own names; rename one)"
            ),
        ),
        (
            ("entity: {person_id: INT64}", "entity: {person_id: INT64, AGEP: INT64}"),
            (
                "8:18: error: inputs.X.features[0]: the name `AGEP` is taken by entity.AGEP "
                "(clients send features under their own names; rename one)"
            ),
        ),
        (
            ("entity: {person_id: INT64}", "entity: {person_id: BYTES}"),
            (
                "6:21: error: entity.person_id: the view `person` says int64, which is INT64, not "
                "BYTES (use INT64)"
            ),
        ),
        (
            ("{path: ../v2.onnx, sha256: " + OTHER_DIGEST + "}", "{labels: [a]}"),
            (
                "5:3: error: versions.v2: it is neither a file nor at another server "
                "(give it `path` and `sha256`, or a `url`)"
            ),
        ),
        (
            ("path: ../v2.onnx,", "path: ../v2.onnx, url: 'http://h/v2/models/m',"),
            (
                "5:3: error: versions.v2: a version is a file or at another server, not both "
                "(leave out `url`, or `path` and `sha256`)"
            ),
        ),
        (
            ("{path: ../v2.onnx, sha256: " + OTHER_DIGEST + "}", "{url: ['http://h/v2']}"),
            (
                "5:14: error: versions.v2.url[0]: `http://h/v2` does not end in /v2/models/NAME "
                "or …/versions/VERSION (such as http://host:8000/v2/models/name)"
            ),
        ),
        (
            (
                "X: {features: [person.*]}",
                "X: {features: [person.*]}\nserve: {hosts: 2}",
            ),
            (
                "9:16: warning: serve.hosts: it counts for `placement: dedicated` only, and this "
                "is `inline`"
            ),
        ),
        (
            (
                "X: {features: [person.*]}",
                "X: {features: [person.*]}\nserve: {placement: dedicated, hosts: {min: 3}}",
            ),
            "9:31: error: serve.hosts: min is 3, which is more than max, 1",
        ),
        (
            ("X: {features: [person.*]}", "X: {features: [person.*]}\nserve: {deadline: 0s}"),
            "9:19: error: serve.deadline: must be more than nothing",
        ),
        (
            ("X: {features: [person.*]}", "X: {features: [person.*]}\nserve: {deadline: 2m}"),
            "9:19: warning: serve.deadline: cut to limits.max_deadline of gateway.yaml, 1m",
        ),
        (
            ("model: employment", "model: jobs"),
            "2:8: warning: model: the file is called `employment.yaml` (rename it to `jobs.yaml`)",
        ),
        (
            ("../v1.onnx", "../v3.onnx"),
            (
                "4:14: error: versions.v1.path: there is no such model file "
                "(the path starts at the folder of this YAML file)"
            ),
        ),
        (
            ("../v1.onnx", "../models"),
            (
                "4:14: error: versions.v1.path: the model file is no regular file "
                "(the path starts at the folder of this YAML file)"
            ),
        ),
        (
            (DIGEST, "0" * 64),
            (
                "4:34: error: versions.v1.sha256: the model file has another digest "
                f"(if the file is right, write {DIGEST})"
            ),
        ),
        (
            (f"../v2.onnx, sha256: {OTHER_DIGEST}", f"../v1.onnx, sha256: {DIGEST}"),
            "5:34: warning: versions.v2.sha256: the same model file as `v1`",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_explained(root: Path, change: Edit, expected: str) -> None:
    """Each rule for models/*.yaml points at the value and says what would fit."""
    edit(root / "models" / "employment.yaml", change)

    assert findings(root) == [f"models/employment.yaml:{expected}"]


def test_a_view_whose_key_no_client_sends_is_explained(root: Path) -> None:
    """The entity a view is looked up by must be one of the model's."""
    edit(
        root / "models" / "employment.yaml",
        ("entity: {person_id: INT64}\n", ""),
        ("  assignment: {key: person_id}\n", ""),
    )

    [finding] = findings(root)

    assert "looked up by `person_id`, which no client sends" in finding
    assert "add `entity: {person_id: INT64}`" in finding


def test_a_linked_model_file_is_refused(root: Path) -> None:
    """A link could be turned to another file after the check."""
    (root / "v1.onnx").rename(root / "real.onnx")
    (root / "v1.onnx").symlink_to("real.onnx")

    assert "is a symbolic link" in findings(root)[0]


def test_model_files_are_left_alone_when_asked(root: Path) -> None:
    """Without artifacts a configuration is judged where its model files are not."""
    (root / "v1.onnx").unlink()

    assert findings(root, artifacts=False) == []


def test_views_and_fields_may_have_dots_in_their_names(root: Path) -> None:
    """`a.b.c` is field `c` of view `a.b` if there is such a view."""
    edit(root / "features" / "person.yaml", ("view: person", "view: person.v2"))
    (root / "features" / "person.yaml").rename(root / "features" / "person.v2.yaml")
    edit(root / "models" / "employment.yaml", ("person.*", "person.v2.AGEP, person.v2.SCHL"))

    assert findings(root) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("{person_id: int64}", "{}"), "entity: a view is looked up by a key"),
        (("{person_id: int64}", "{AGEP: int64}"), "fields.AGEP: `AGEP` is also a key of this view"),
        (("fields:", "source: feast\nfields:"), "source: Feast's project is not said"),
        (
            ("fields:", "feast: {project: p}\nfields:"),
            "feast: means nothing without `source: feast`",
        ),
        (
            ("fields:", "source: feast\nfeast: {project: p}\nstream: s\nfields:"),
            "stream: Feast writes this view; it is only read here",
        ),
        (("fields:", "seed: nowhere.csv\nfields:"), "seed: no such file or directory"),
        (("default: 0", "default: x"), "fields.AGEP.default: `x` is no float32"),
        (("default: 0", "default: 1e39"), "fields.AGEP.default: `1e+39` is no float32"),
        (("default: 1", "default: 128"), "fields.SCHL.default: `128` is no int8"),
        (("default: 1", "default: 1.5"), "fields.SCHL.default: `1.5` is no int8"),
        (("default: 1", "default: true"), "fields.SCHL.default: `True` is no int8"),
        (("int8, default: 1", "string, default: 1"), "fields.SCHL.default: `1` is no string"),
        (("int8, default: 1", "bool, default: 1"), "fields.SCHL.default: `1` is no bool"),
        (("view: person", "view: people"), "warning: view: the file is called `person.yaml`"),
        ((VIEW.partition("fields:")[2], " {}\n"), "fields: a view needs a field"),
        ((", default: 1", ""), "fields.SCHL: `on_missing: default` needs a default here"),
        (("fields:", "fresh_for: 7\nfields:"), "fresh_for: expected a number with a unit"),
        (("fields:", "keep_for: 1d\nfields:"), "keep_for: shorter than fresh_for, 7d"),
        (("fields:", "on_missing: nan\nfields:"), "fields.SCHL.type: `on_missing: nan` needs"),
    ],
)
def test_a_view_that_contradicts_itself_is_explained(
    root: Path, change: Edit, expected: str
) -> None:
    """Each rule for features/*.yaml names the option."""
    edit(root / "features" / "person.yaml", change)

    assert any(expected in finding for finding in findings(root) if "features/" in finding)


def test_two_views_do_not_share_a_stream(root: Path) -> None:
    """An entry is a row of one of them."""
    text = VIEW.replace("fields:", "stream: s\nfields:")
    (root / "features" / "person.yaml").write_text(text)
    (root / "features" / "other.yaml").write_text(text.replace("view: person", "view: other"))

    assert any("stream: `s` is also the stream of `other`" in one for one in findings(root))


def test_features_that_feast_keeps_under_one_name_are_found(root: Path) -> None:
    """Their hashes collide, and Feast does not look."""
    fields = ", ".join(
        f"{name}: {{type: float32, default: 0}}"
        for name in ("avg_item_8049_1h", "std_item_2738_24h")
    )
    (root / "features" / "user_stats.yaml").write_text(
        f"view: user_stats\nentity: {{id: int64}}\nsource: feast\nfeast: {{project: p}}\n"
        f"fields: {{{fields}}}\n"
    )

    [finding] = findings(root)

    assert "fields.std_item_2738_24h: Feast keeps it under the same name as" in finding
