"""What is made of what aggregators find wrong."""

from __future__ import annotations

import pytest
from structlog.testing import CapturingLogger

from include.domain.timeframes import MINUTE_US
from streamer import anomalies as module
from streamer.anomalies import Findings
from streamer.storage.gap_ledger import GapLedger


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    return log


async def test_of_many_holes_of_a_minute_one_is_logged_and_all_are_counted(
    log: CapturingLogger,
) -> None:
    ledger = GapLedger("postgresql://", expects_klines=True)
    findings = Findings(ledger)
    for at_us in (1, 2, MINUTE_US + 1):
        findings.hole("BTCUSDT", 7, 8, at_us, at_us + 1)
    assert [call.args for call in log.calls] == [("trades_missing",)] * 2
    assert findings._counts["holes"] == 3
    [gap] = ledger._gaps["BTCUSDT"]
    assert (gap.start_us, gap.end_us, gap.cause) == (0, 2 * MINUTE_US, "trades missing")


async def test_differences_and_corrections_are_counted_apart(log: CapturingLogger) -> None:
    findings = Findings(GapLedger("postgresql://", expects_klines=True))
    findings.differs("BTCUSDT", 0, ["close"])
    findings.corrected("BTCUSDT", 0, ["open"])
    findings.corrected("BTCUSDT", MINUTE_US, ["open"])
    findings.ids_restarted("BTCUSDT", 9, 1, MINUTE_US)
    assert findings._counts == {"differing": 1, "corrected": 2}
    assert [call.args[0] for call in log.calls] == [
        "checksum_differs",
        *["open_candle_corrected"] * 2,
        "trade_ids_restarted",
    ]
