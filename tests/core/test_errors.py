import pickle

from vqa_train.core.errors import ExitCode, GateFailedError, MediaError, Reason, UsageError, VqaError


def test_message_is_one_line_with_its_hint() -> None:
    error = VqaError("file 'a'\n  is broken", hint="mend it")
    assert str(error) == "file 'a' is broken - mend it"


def test_error_crosses_process_borders_whole() -> None:
    error = MediaError("no frames", hint="re-encode", reason=Reason.TRUNCATED)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is MediaError
    assert (str(again), again.reason) == (str(error), Reason.TRUNCATED)


def test_exit_codes_are_those_documented() -> None:
    assert (UsageError("x").exit_code, GateFailedError("x").exit_code, VqaError("x").exit_code) == (2, 3, 1)
    assert ExitCode.SOME_INPUTS_FAILED == 4
