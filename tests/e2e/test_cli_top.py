"""`tillgate top` against a gateway that answers, and one that does not."""

from pathlib import Path

from cli_world import Shell, open_market, serving, tillgate


def test_one_interval_of_a_serving_gateway(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "data")
    assert shell("init").code == 0
    with serving(shell.data):
        open_market(shell, tmp_path)
        told = shell.json("top", "--every", 0.2)
        assert (told["gateways"], told["ready"], told["valkey_up"]) == (1, 1, True)
        assert told["partitions"] == {"admitting": 1}
        assert told["disk_free_bytes"] > 0
        page = shell("top", "--once", "--every", 0.2).out
        assert "verdicts/s" in page
        assert "1 of 1" in page


def test_nobody_there(tmp_path: Path) -> None:
    told = tillgate("top", "--metrics", "http://127.0.0.1:9/metrics")
    assert told.code == 4
    assert "nobody answers" in told.err
    assert tillgate("top", "--metrics", "metrics").code == 2
