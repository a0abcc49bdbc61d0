from serving.engine.supervised import explain_full_disk


def test_a_full_disk_is_recognised_in_the_last_words_of_any_process() -> None:
    """Trying again would not help, so it is said at once and in plain words."""
    words = ["control: admin: http://127.0.0.1:1", "OSError: [Errno 28] No space left on device"]

    assert explain_full_disk(words) == "the disk that holds the data directory is full"
    assert explain_full_disk(words[:1]) == ""
