"""Why a process of Ray ended, in words: whose memory, which machine. Knows no gang and no task."""

import re

_CROWDED = re.compile(
    r"Memory on the node \(IP: (?P<host>[^,)]+).*?was (?P<used>[\d.]+)GB used / (?P<all>[\d.]+)GB", re.IGNORECASE
)
_TABLE = re.compile(r"PID\s+MEM\(GB\)\s+COMMAND\s*\n(?P<lines>(?:\s*\d+\s+[\d.]+\s+[^\n]+\n?)+)")
_COMMAND_CHARS = 60
_DIED = re.compile(r"is dead because (.+?)\.(?: Worker exit type: \w+ Worker exit detail: (.+?)(?:\. |\.?$))?", re.M)
"""Why an actor died, which Ray says after its name and number."""
_LARGEST = 3
"""How many processes are named: Ray lists ten."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means exhausted memory, as Python, torch (CPU and GPU) and Ray say it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def in_words(error: BaseException) -> str:
    """Describe in one line what ended a process; for exhausted memory also where, and who had most of it."""
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if not out_of_memory(error):
        if died := _DIED.search(text):
            first = ": ".join(part.rstrip(".") for part in died.groups() if part)
        return f"{type(error).__name__}: {first}" if first else type(error).__name__
    where, table = _CROWDED.search(text), _TABLE.search(text)
    if where is None:
        return f"out of memory: {first}"
    used = f"{where['used']} of {where['all']} GB used"
    words = f"out of memory on {where['host']} ({used}), ended by Ray's memory monitor"
    if table is None:
        return words
    return f"{words}; most of it by {'; '.join(_process(line) for line in table['lines'].splitlines()[:_LARGEST])}"


def _process(line: str) -> str:
    """`process 812, 3.10 GB: ray::train`, of a line of Ray's table."""
    pid, gb, command = line.split(maxsplit=2)
    short = command.strip() if len(command) <= _COMMAND_CHARS else f"{command[:_COMMAND_CHARS].strip()}..."
    return f"process {pid}, {gb} GB: {short}"
