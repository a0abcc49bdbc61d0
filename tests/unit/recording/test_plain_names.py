"""Columns have the names that people use, and no two the same."""

from serving.recording.plain_names import plain_names


def test_a_column_is_called_by_its_own_name() -> None:
    """What kind it is, is left out where it is not needed."""
    names = plain_names(["prediction_id", "entity.person_id", "feature.AGEP", "output.label"])

    assert list(names.values()) == ["prediction_id", "person_id", "AGEP", "label"]


def test_two_that_share_a_name_keep_their_kind() -> None:
    """In SQL `SCORE` and `score` are one name."""
    names = plain_names(["feature.SCORE", "output.score", "feature.other"])

    assert list(names.values()) == ["feature_SCORE", "output_score", "other"]


def test_a_column_that_every_row_has_keeps_its_name() -> None:
    """A feature called `role` is not the role."""
    names = plain_names(["role", "feature.Role"])

    assert names == {"role": "role", "feature.Role": "feature_Role"}


def test_views_give_two_columns() -> None:
    """How a view answered, and how old its values were."""
    names = plain_names(["status.person_profile", "age.person_profile"])

    assert list(names.values()) == ["status_person_profile", "age_person_profile"]


def test_no_two_names_are_equal_whatever_the_features_are_called() -> None:
    """Names can be made to collide with the longer form, too."""
    names = plain_names(["feature.a", "output.a", "feature.feature_a", "entity.output_a"])

    assert len({name.casefold() for name in names.values()}) == 4
