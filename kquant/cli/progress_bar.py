"""The progress bar of long commands, on terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from kquant._text import size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task


class Bar:
    """Bytes done, as a bar with figures."""

    def __init__(self, label: str, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            Figures(),
        )
        self.bar = RichProgress(*columns, console=console)
        self.bar.start()
        self.task = self.bar.add_task(label, total=None)

    def update(self, done: int, total: int) -> None:
        """Draw the bar anew."""
        self.bar.update(self.task, completed=done, total=total)

    def close(self) -> None:
        """Leave it as it stands, and begin a new line."""
        self.bar.stop()
        self.bar.console.print()


class Figures(ProgressColumn):
    """Bytes done, speed and time left; the time that it took when all is done."""

    def render(self, task: Task) -> Text:
        """What stands behind the bar."""
        if task.total is None or not task.completed:
            return Text("preparing", style="dim")
        speed = task.finished_speed or task.speed
        words = [f"{size(task.completed)} of {size(task.total)}", f"{size(speed)}/s" if speed else ""]
        if task.finished:
            words.append(f"{task.finished_time or 0:.1f} s")
        elif task.time_remaining is not None:
            words.append(f"{task.time_remaining:.0f} s left")
        return Text("  ".join(filter(None, words)))
