"""The log loses no fact and keeps no secret."""

import logging
from contextlib import nullcontext, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog
from small_disk import small_disk

from vitpipe.infra import logs

CANARY = "cAn4ry/S3cr3t+Value=="


@pytest.fixture
def log_file(tmp_path, restored_logging):
    path = tmp_path / "run.log"
    logs.configure(path)
    return path


@pytest.fixture
def restored_logging():
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_both_kinds_of_loggers_write_one_plain_line(log_file: Path) -> None:
    logs.bind(node="backbone")
    logging.getLogger("vitpipe.infra.test").info("read %d bytes", 17)
    structlog.get_logger("vitpipe.stages.test").warning("slow", seconds=1.5)
    lines = log_file.read_text().splitlines()
    assert len(lines) == 2
    assert "info read 17 bytes node=backbone [vitpipe.infra.test]" in lines[0]
    assert "warning slow seconds=1.5" in lines[1] or "warning slow node=backbone seconds=1.5" in lines[1]


def test_third_parties_are_heard_from_warning_on(log_file: Path) -> None:
    logging.getLogger("botocore").info("chatter")
    logging.getLogger("botocore").warning("trouble")
    assert "chatter" not in log_file.read_text()
    assert "trouble" in log_file.read_text()


def test_a_canary_secret_is_found_nowhere(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    log = logging.getLogger("vitpipe.infra.canary")
    log.info("message " + CANARY)
    log.info("arguments %s %r", CANARY, {"key": CANARY})
    structlog.get_logger("vitpipe.infra.canary").info(
        "structured", value=CANARY, url=f"https://host/?k={quote(CANARY, '')}"
    )
    try:
        raise ValueError(f"signing with {CANARY} failed")
    except ValueError:
        log.exception("traceback")
    text = log_file.read_text()
    assert "traceback" in text and "ValueError" in text and text.count(logs.HIDDEN) >= 5
    assert CANARY not in text and quote(CANARY, "") not in text


def test_the_canary_would_be_found_under_a_harmless_name(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMLESS", CANARY)
    logging.getLogger("vitpipe.infra.canary").info("message %s", CANARY)
    assert CANARY in log_file.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "s3 key AKIACANARY0CANARY0AB in use",
        "Authorization: AWS4-HMAC-SHA256 Credential=CANARY0/2026, Signature=CANARY0",
        "{'Authorization': 'Bearer CANARY0CANARY0'}",
        "headers: Authorization=Basic CANARY0CANARY0",
        "curl -H 'x-token: CANARY0CANARY0' host",
        "connect to https://user:CANARY0@host/path",
        "GET https://b.s3/k?X-Amz-Credential=CANARY0&X-Amz-Signature=CANARY0&X-Amz-Security-Token=CANARY0CANARY0",
        'aws_secret_access_key = "CANARY0"',
        '{"password": "CANARY0"}',
        "credentials: CANARY0",
        "the credentials: CANARY0 and more words",
        "Unable to log in, credentials: CANARY0",
        "token: CANARY0CANARY0 failed",
        "Basic CANARYCANARY",
        "Bearer canary-CANARY0",
        "RAY_AUTH_TOKEN=CANARY0CANARY0",
        "-----BEGIN RSA PRIVATE KEY-----\nCANARY0\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_secrets_are_known_by_their_shape(text: str) -> None:
    assert "CANARY" not in logs.redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "197 tokens=197 width=768",
        "wrote s3://bucket/run/step-10/manifest.json",
        "user@host wrote 5 tokens: 5",
        "Cannot reach S3: no usable AWS credentials: Unable to locate credentials. Set AWS_PROFILE.",
        "Cannot reach S3: no usable AWS credentials (Unable to locate credentials). Set AWS_PROFILE.",
        "Cannot submit on the Ray cluster: the token in RAY_AUTH_TOKEN is not its token (Authentication failed: x).",
        "Cannot submit on the Ray cluster: the token in /root/.ray/auth_token is not its token (Forbidden).",
        "Cannot submit on the Ray cluster: there is no token on this machine (Authentication failed).",
        "Basic authentication failed: Forbidden",
    ],
)
def test_facts_stay(text: str) -> None:
    assert logs.redact(text) == text


def test_a_value_can_be_hidden_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_hidden", set())
    assert "ray-cookie-value" in logs.redact("ray-cookie-value")
    logs.hide("ray-cookie-value")
    assert "ray-cookie-value" not in logs.redact("ray-cookie-value")


@pytest.mark.parametrize("stream", [False, True])
def test_lines_that_a_full_disk_does_not_take_are_counted_not_complained_about(
    stream: bool, restored_logging: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """`/dev/full` is a disk without room."""
    to = Path("/dev/full").open("w", buffering=1) if stream else Path("/dev/full")  # noqa: SIM115
    handler = logs.configure(to)
    for number in range(3):
        logging.getLogger("vitpipe.infra.test").info("line %d", number)
    where = "standard error" if stream else "/dev/full"
    assert handler.take_dropped() == f"3 log lines dropped: {where} is full"
    assert handler.take_dropped() is None, "each is told once"
    if not isinstance(to, Path):
        with suppress(OSError):  # what Python keeps of the last line
            to.close()
    assert capfd.readouterr().err == ""


def test_what_was_dropped_does_not_come_late_and_no_line_is_joined_to_a_torn_one(
    tmp_path: Path, restored_logging: None
) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        path = disk.path / "run.log"
        handler = logs.configure(path)
        log = logging.getLogger("vitpipe.infra.test")
        log.info("before")
        disk.fill()
        for _ in range(3):
            log.info("x" * 5000)
        disk.make_room()
        log.info("after")
        assert handler.take_dropped() == f"3 log lines dropped: {path} is full"
        lines = path.read_text().splitlines()
        assert "before" in lines[0] and lines[-1].endswith("after [vitpipe.infra.test]") and "x after" not in lines[-1]
        assert path.stat().st_size < 5000, "nothing that was dropped is written later"


@pytest.mark.parametrize("of_a_user", [True, False])
def test_a_wrong_log_call_costs_a_user_its_line_and_fails_a_test(
    of_a_user: bool, tmp_path: Path, restored_logging: None, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Nothing is printed between a user's lines, and no bug of ours is hidden from these tests."""
    assert logs.RAISES, "as the tests are set up"
    monkeypatch.setattr(logs, "RAISES", not of_a_user)
    handler = logs.configure(tmp_path / "run.log")
    with nullcontext() if of_a_user else pytest.raises(TypeError, match="not all arguments converted"):
        logging.getLogger("vitpipe.infra.test").info("no place for it", "argument")
    logging.getLogger("vitpipe.infra.test").info("the log goes on")
    assert (tmp_path / "run.log").read_text().count("\n") == 1 and handler.take_dropped() is None
    assert capfd.readouterr().err == "" or not of_a_user
