"""Numbers of things in words."""


def counted(many: float, what: str, form: str = ",.0f") -> str:
    """Write a number of things: `1 core`, `2,048 GPUs`."""
    return f"{many:{form}} {what}{'' if many == 1 else 's'}"
