"""Order books by REST, rebuilt from captured depth."""

from __future__ import annotations

from include.domain.books.order_book import BookSnapshot
from include.store.postgres.pools import connect
from include.store.trades.captured import DEPTH_DIFFS, DEPTH_SNAPSHOTS, write_raw
from tests.integration.serving.http.api_client import T0, api_client

SECOND_US = 1_000_000
PATH = "/api/v1/symbols/BTCUSDT/order-book"


def at(seconds: int) -> int:
    """The time of a second after the snapshot, in ms."""
    return (T0 + seconds * SECOND_US) // 1_000


def store_book(url: str) -> None:
    """A snapshot, changes one and two seconds later, and one at four that misses a change."""
    snapshot = BookSnapshot(
        10, [("100.5", "1"), ("100.4", "2")], [("100.6", "3"), ("100.7", "4")], "100.4", "100.7"
    )
    diffs = [
        (11, 12, 1, [("100.5", "0"), ("100.3", "7")], []),
        (13, 13, 2, [], [("100.6", "2.50"), ("101", "9")]),
        (15, 15, 4, [("100.4", "8")], []),
    ]
    with connect(url, application_name="test") as connection:
        write_raw(
            connection, DEPTH_SNAPSHOTS, [DEPTH_SNAPSHOTS.line(("BTCUSDT", snapshot, "rest", T0))]
        )
        write_raw(
            connection,
            DEPTH_DIFFS,
            [
                DEPTH_DIFFS.line(
                    ("BTCUSDT", last, first, None, T0 + s * SECOND_US, None, T0, bids, asks)
                )
                for first, last, s, bids, asks in diffs
            ],
        )


async def test_book_is_rebuilt_with_changes_up_to_the_time(stored_url: str) -> None:
    store_book(stored_url)
    async with api_client(stored_url) as client:
        answer = await client.get(PATH, params={"time": at(1), "levels": 2})
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "public, max-age=3600"
        found = answer.json()
        levels = [
            (one["side"], one["level"], one["price"], one["quantity"], one["is_known"])
            for one in found.pop("order_book")
        ]
        assert levels == [
            ("ask", 1, "100.6", "3", True),
            ("ask", 2, "100.7", "4", True),
            ("bid", 1, "100.4", "2", True),
            ("bid", 2, "100.3", "7", False),
        ]
        assert found == {
            "symbol": "BTCUSDT",
            "state": "known",
            "last_update_id": 12,
            "event_time": "2023-11-14T22:14:01Z",
            "detail": None,
        }
        best = (await client.get(PATH, params={"time": at(0), "levels": 1})).json()["order_book"]
        assert [(one["price"], one["quantity"]) for one in best] == [("100.6", "3"), ("100.5", "1")]


async def test_book_that_is_not_known_is_404_with_the_reason(stored_url: str) -> None:
    store_book(stored_url)
    async with api_client(stored_url) as client:
        before = await client.get(PATH, params={"time": at(-1)})
        assert before.status_code == 404
        assert "no snapshot of BTCUSDT" in before.json()["detail"]
        assert "CAPTURE=depth" in before.json()["detail"]
        gap = await client.get(PATH, params={"time": at(3)})
        assert gap.status_code == 404
        assert "updates 13 and 14" in gap.json()["detail"]
        now = await client.get(PATH)
        assert now.status_code == 404  # the change before the newest is missing
        assert (await client.get(PATH, params={"levels": 1_001})).status_code == 400
        assert (await client.get("/api/v1/symbols/NOPE/order-book")).status_code == 404
