"""The GPU check's frame: a section that dies is a row, what it had is kept, and what must hold decides the exit code.

The sections are stand-ins of a line each: no torch is imported.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitpipe.infra.errors import UsageError
from vitpipe.pipeline.plan.given_machines import gpu_kinds
from vitpipe.stages.gpu_check import __main__, program, sections
from vitpipe.stages.gpu_check.findings import Findings, Told, Way
from vitpipe.stages.gpu_check.report import CheckReport, gpu_table, kind_of

SAY = "from pathlib import Path; import sys, time; from vitpipe.stages.gpu_check.findings import Findings; "
SAY += "f = Findings(Path(sys.argv[1]), 9); "
GOOD = SAY + "f.row({'way': 'a', 'apart': 0.125}, ok=True); f.note('as it should be')"
DIFFERS = SAY + "f.row({'way': 'a'}, ok=True); f.row({'way': 'b'}, ok=False)"
DIES = SAY + "f.row({'way': 'a'}, ok=True); print('ValueError: a planted one', file=sys.stderr); sys.exit(1)"
LACKS = SAY + "print('needs torchvision', file=sys.stderr); sys.exit(3)"
HANGS = SAY + "f.row({'way': 'first'}, ok=True); time.sleep(60)"
SHOWS_NOTHING = SAY + "f.row({'way': 'a'})"


def check(
    patch: pytest.MonkeyPatch, out: Path, minutes: float = 5, **code: str
) -> tuple[CheckReport, list[str], dict[str, Told]]:
    """Run these sections as given; the report, the lines for people, and what each told."""
    patch.setattr(program, "command", lambda name, way, rows: [sys.executable, "-c", code[name], str(rows)])
    said: list[str] = []
    options = program.Options(minutes, out, tuple(code), device="cpu")
    report = program.check(options, said.append)
    return report, said, {told.name: told for told in report.sections}


def test_a_section_that_dies_is_a_row_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, said, told = check(monkeypatch, tmp_path, machine=GOOD, losses=GOOD, resume=DIES, graphs=LACKS, speed=DIES)
    assert said[0] == program.NO_GPU
    assert told["machine"].rows == [{"way": "a", "apart": 0.125}] and told["machine"].notes == ["as it should be"]
    assert (told["resume"].state, told["resume"].rows) == ("failed", [{"way": "a"}])
    assert told["resume"].why == f"ended with 1: ValueError: a planted one; see {tmp_path / 'resume.log'}"
    assert (told["graphs"].state, told["graphs"].why) == ("left out", "needs torchvision")
    assert report.wrong == ["resume", "graphs"], "speed only measures"
    assert told["sharing"].state == "not asked for"
    assert program.exit_code(report.sections) == program.NOT_OK == 7
    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["shrunk"] and kept["wrong"] == ["resume", "graphs"] and kept["versions"]["torch"] != "absent"
    page = (tmp_path / "report.md").read_text()
    assert "| a | 0.125 | yes |" in page and "Failed: ended with 1: ValueError: a planted one" in page
    assert not (tmp_path / "gpus.yaml").exists(), "a CPU's table would be no GPU's"


@pytest.mark.parametrize(("code", "wanted"), [(GOOD, 0), (DIFFERS, 7), (DIES, 7), (SHOWS_NOTHING, 7)])
def test_what_must_hold_decides_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, wanted: int
) -> None:
    report, _, _ = check(monkeypatch, tmp_path, losses=code, speed=SHOWS_NOTHING)
    assert program.exit_code(report.sections) == wanted


def test_a_section_is_cut_off_at_its_time_and_its_rows_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "LEAST_S", 0.1)
    report, said, told = check(monkeypatch, tmp_path, minutes=0.05, losses=HANGS)
    assert told["losses"].state == "cut off" and told["losses"].rows == [{"way": "first"}]
    assert report.wrong == ["losses"] and any(line.startswith("BAD cut off") for line in said)
    report, said, told = check(monkeypatch, tmp_path / "2", minutes=0.05, speed=HANGS, sharing=GOOD)
    assert told["speed"].state == "cut off" and report.wrong == []
    assert told["sharing"].state in ("done", "cut off"), "what only measures takes nobody's time"


def test_a_section_without_time_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, said, told = check(monkeypatch, tmp_path, minutes=0.01, losses=GOOD)
    assert told["losses"].state == "left out" and told["losses"].why.startswith("no time was left")
    assert any("no time was left" in line for line in said)


def test_sections_are_chosen_by_name() -> None:
    assert sections.chosen(None) == sections.NAMES and sections.chosen("speed, losses") == ("speed", "losses")
    with pytest.raises(UsageError, match="no section spede"):
        sections.chosen("spede")
    for empty in ("", " , "):
        with pytest.raises(UsageError, match="no section is named"):
            sections.chosen(empty)
    with pytest.raises(UsageError, match="that is no time"):
        program.Options(minutes=0)


def test_a_section_names_what_it_had_no_time_for(tmp_path: Path) -> None:
    told = Told("speed", "Speed", proves=False)
    Findings(tmp_path / "rows", 10).left_out("H/14 x 256 bf16")
    for line in (tmp_path / "rows").read_text().splitlines():
        told.take(line)
    assert told.not_measured == ["H/14 x 256 bf16: no time was left"]


def measured(tmp_path: Path, **facts: float) -> CheckReport:
    """A report as a GPU leaves it."""
    report = CheckReport(tmp_path, shrunk=False, versions={})
    about = {"name": "NVIDIA H200", "memory_bytes": 150_754_820_096, "memory_bandwidth": 4.3e12, "watts": 700.0}
    shares = {f"utilisation {name}": share for name, share in facts.items()}
    peak = {"peak_flops": 989e12, "peak is": "peak_flops is the vendor's dense bf16"}
    report.sections = [
        Told("machine", "Machine", proves=False, facts=about),
        Told("speed", "Speed", proves=False, facts=peak | shares),
    ]
    return report


def test_the_gpus_table_for_the_plan(tmp_path: Path) -> None:
    report = measured(tmp_path, **{"B/16": 0.41, "L/16": 0.52, "H/14": 0.55})
    report.write()
    kinds, shipped = gpu_kinds(tmp_path / "gpus.yaml"), gpu_kinds()
    found = kinds["H200"]
    assert (found.peak_flops, found.memory_bytes, found.memory_bandwidth) == (989e12, 150_754_820_096, 4.3e12)
    assert found.utilisation == {"default": 0.52, "B/16": 0.41, "L/16": 0.52, "H/14": 0.55}
    assert found.nvlink_bytes_per_s == shipped["H200"].nvlink_bytes_per_s, "one GPU alone cannot measure it"
    assert kinds["H100"] == shipped["H100"]
    assert gpu_table(measured(tmp_path)) is None, "nothing of ours was measured"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA L40S", "L40S"),
        ("Tesla V100-SXM2-16GB", "V100"), ("NVIDIA GB200", "GB200"), ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
    ],
)  # fmt: skip
def test_kinds_have_the_names_of_tables(name: str, kind: str) -> None:
    assert kind_of(name) == kind


BARE = """
import sys
from importlib import import_module
from pathlib import Path
for name in ("ray boto3 botocore s3transfer prometheus_client structlog tenacity ruamel typer rich webdataset "
             "braceexpand huggingface_hub httpx2 sklearn pyarrow torchmetrics timm").split():
    sys.modules[name] = None
from vitpipe.stages.gpu_check import section, sections
for name in sections.NAMES:
    import_module(f"vitpipe.stages.gpu_check.{name}")
assert sections.versions()["ray"] == sections.versions()["boto3"] == "absent"
sys.exit(section.main())
"""


def test_nothing_is_needed_of_ray_of_a_store_or_of_a_command_line(tmp_path: Path) -> None:
    """As on a machine with torch, DeepSpeed and this repository: every section's imports, and one section's work."""
    rows = tmp_path / "rows"
    words = ["losses", "--device", "cpu", "--shrunk", "--rows", rows, "--scratch", tmp_path, "--seconds", "300"]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *words], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = Told("losses", "Losses", proves=True, state="done")
    for line in rows.read_text().splitlines():
        told.take(line)
    assert not told.wrong and [row["way"] for row in told.rows] == ["ZeRO 1, fp32", "ZeRO 1, bf16"]


def test_the_program_prints_json_and_ends_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "command", lambda name, way, rows: [sys.executable, "-c", DIFFERS, str(rows)])
    words = ["gpu_check", "--sections", "losses", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*words, "--json"])
    assert __main__.main() == 7
    assert json.loads(capsys.readouterr().out)["wrong"] == ["losses"]
    monkeypatch.setattr(sys, "argv", words)
    assert __main__.main() == 7
    assert f"not shown: losses; tables in {tmp_path / 'report.md'}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--sections", "spede"])
    assert __main__.main() == 2 and "no section spede" in capsys.readouterr().err


ENDED = """
import sys
from vitpipe.stages.gpu_check import __main__, program
out, code = sys.argv[1:]
program.command = lambda name, way, rows: [sys.executable, "-c", code]
sys.argv[1:] = ["--sections", "losses", "--device", "cpu", "--out", out]
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_check_that_is_asked_to_end_leaves_no_section_and_no_files(tmp_path: Path, number: int) -> None:
    begun = tmp_path / "begun"
    hangs = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(60)"
    words = [sys.executable, "-c", ENDED, str(tmp_path / "out"), hangs]
    check = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    while not (begun.exists() and begun.read_text().endswith(".")):
        assert check.poll() is None
        time.sleep(0.05)
    check.send_signal(number)
    check.send_signal(number)
    assert check.wait(timeout=30) == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()[:-1]), 0)
    assert not list(tmp_path.glob("vitpipe-gpu-*")) and (tmp_path / "out" / "losses.log").exists()
    tables = (tmp_path / "out" / "report.md").read_text()
    assert "Not shown: losses." in tables and "Cut off: the check was ended." in tables


def test_a_check_that_was_ended_names_what_it_had_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_news", ends)
    monkeypatch.setattr(program, "command", lambda name, way, rows: [sys.executable, "-c", ""])
    with pytest.raises(KeyboardInterrupt):
        program.check(program.Options(out=tmp_path / "out", device="cpu"), print)
    tables = (tmp_path / "out" / "report.md").read_text()
    assert "All that must hold" not in tables and "Left out: not begun." in tables
    assert [name in tables for name in ("losses", "resume", "graphs")] == [True] * 3


@pytest.mark.parametrize("words", [("--out", "a-file"), ("--peak-flops", "nan"), ("--peak-flops", "0")])
def test_what_cannot_be_asked_ends_with_2(
    words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--sections", "machine", "--device", "cpu", *words])
    assert __main__.main() == 2
    said = capsys.readouterr().err
    assert said.startswith(("Cannot keep the report in a-file: ", "Cannot check the GPU with --peak-flops"))


def test_a_way_knows_its_device(tmp_path: Path) -> None:
    assert Way("cuda:0", False, tmp_path, 1).cuda and not Way("cpu", True, tmp_path, 1).cuda
