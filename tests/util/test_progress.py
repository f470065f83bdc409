import io

from medlord_bench.util.progress import PlainProgress


def test_plain_progress_ends_with_the_total_and_the_latest_figures() -> None:
    out = io.StringIO()
    with PlainProgress(out, every=1000).task("train", 3) as task:
        for step in range(3):
            task.advance(loss=1.0 / (step + 1))
    lines = out.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("train: 3/3")
    assert "loss 0.3333" in lines[0]


def test_plain_progress_says_how_long_is_left_after_a_resume() -> None:
    out = io.StringIO()
    with PlainProgress(out, every=0).task("train", 10, done=8) as task:
        task.advance()
    assert out.getvalue().startswith("train: 9/10  0:00 left")
