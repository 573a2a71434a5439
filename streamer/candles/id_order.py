"""What becomes of trades of a symbol that do not follow the one before them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from include.binance.streams.messages import AggTrade, Trade, microseconds
from streamer.candles.continuity import IdOrder, TradeIds
from streamer.candles.minutes import Minutes
from streamer.candles.seeding import SeedSearch


class TradeOrder(ABC):
    """Sorts out what repeats, is void, or was overtaken; what goes on is folded by the heir.

    Args:
        ids: tells what a trade is to those before it.
    """

    def __init__(self, ids: TradeIds) -> None:
        self.ids = ids
        self.minutes = Minutes()
        self.duplicates = self.void_trades = 0
        self._seed: SeedSearch | None = None

    @abstractmethod
    def on_trade(self, trade: AggTrade | Trade) -> None:
        """Take a trade."""

    @abstractmethod
    def _fold(self, trade: AggTrade | Trade, trade_us: int, step: IdOrder) -> None:
        """Fold it into its minute."""

    @abstractmethod
    def _break_minutes(self) -> None:
        """Trades are missing of the minutes known so far."""

    @abstractmethod
    def _break_off(self, step: IdOrder, trade: AggTrade | Trade, trade_us: int) -> None:
        """Ids do not go on."""

    def _goes_on(self, step: IdOrder, trade: AggTrade | Trade, trade_us: int) -> bool:
        """Whether a trade that does not follow is to be folded now."""
        if step is IdOrder.REPEATS:
            self.duplicates += 1
        elif step is IdOrder.VOID:
            self.void_trades += 1
        elif step is IdOrder.OVERTAKEN:
            self._take_again(trade)
        elif step is IdOrder.WAITS:
            if self.ids.is_over(trade_us):
                self._wait_no_longer()
        elif step is IdOrder.PRECEDES:
            if trade.id != self.ids.first_id:
                self._break_minutes()
            elif self._seed is None and not self.minutes.have(trade, trade_us):
                self._fold(trade, trade_us, step)  # else the kline that seeds, or did, has it
        else:
            self._break_off(step, trade, trade_us)
            return True
        return False

    def _take_again(self, *trades: AggTrade | Trade) -> None:
        """These, and those that wait for them."""
        for trade in (*trades, *self.ids.release()):
            self.on_trade(trade)

    def _wait_no_longer(self) -> None:
        """What was not overtaken is missing."""
        could_wait, self.ids.may_wait = self.ids.may_wait, False
        self._take_again()
        self.ids.may_wait = could_wait

    def _cut(self) -> None:
        """What does not come with the next connection is missing, for a minute at most."""
        self._wait_no_longer()
        self.ids.may_wait = False

    def _look_at_wait(self, event_time: int, known_to: int = -1) -> None:
        """End the wait of trades where it has lasted long enough.

        Args:
            event_time: the exchange's time, in ms or µs.
            known_to: the last single trade of a kline.
        """
        if self.ids.is_over(microseconds(event_time), known_to=known_to):
            self._wait_no_longer()
