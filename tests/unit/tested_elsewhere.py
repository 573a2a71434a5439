"""Modules without a test file of their name, and why: read by test_structure.py."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

BY_A_WHOLE_STREAMER = "tests/integration/streamer/test_streamer.py runs it on real sockets"
ASKED_BY_A_CLIENT = "asked by HTTP in tests/integration/serving/api/"
OF_BUILT_MARTS = "asked by HTTP in tests/integration/dbt/test_served_marts.py"
BEFORE_A_STREAMER = "runs in tests/integration/serving/grpc/test_market_data.py"
BY_A_WHOLE_SIMULATOR = "tests/integration/simulator/ asks a running one by HTTP and WebSocket"
FAULTS_ON_SOCKETS = "tests/integration/simulator/faults/ sees their effects as a client"
EVERY_STREAM = "stream by stream in tests/unit/simulator/streams/feeds/test_catalogue.py"
THE_MARKETS_INSIDE = "against a plain sum: tests/unit/simulator/market/test_market.py"
BY_A_BACKFILL = "tests/integration/jobs/ backfills and repairs with it, also where that goes wrong"
BY_TRADE_DUMPS = (
    "files are planned, fetched and kept in tests/integration/jobs/trades/test_dumps.py"
)

QUALITY = [
    "include/jobs/quality.py",
    "include/store/ledgers/quality_runs.py",
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "include" / "quality").rglob("*.py")),
]

TESTED_ELSEWHERE = {
    "include/binance/files/archives.py": BY_A_BACKFILL,
    "include/binance/files/columns.py": BY_A_BACKFILL,
    "include/binance/files/dumps.py": BY_A_BACKFILL,
    "include/binance/files/kline_files.py": BY_A_BACKFILL,
    "include/binance/rest/klines.py": "pages of them: tests/unit/binance/rest/test_client.py",
    "cli/commands/archive.py": "calls the jobs of tests/integration/jobs/storage/test_archive.py",
    "cli/commands/backup.py": "calls the jobs of tests/integration/jobs/storage/test_backup.py",
    "include/store/accounts/notifications.py": (
        "hears in tests/integration/store/accounts/test_watchlists.py"
    ),
    "include/store/storage/restoring.py": (
        "restores in tests/integration/jobs/storage/test_backup.py"
    ),
    "cli/commands/backfill.py": (
        "typed as a person would in tests/integration/jobs/test_commands.py"
    ),
    "cli/commands/import_files.py": "typed as a person would, in the same file",
    "cli/local/demo.py": "run as a whole by `make demo ONCE=1`, whose exit code is its verdict",
    "streamer/hub/trade_hub.py": "what readers are told: tests/unit/streamer/hub/test_ticks.py",
    "streamer/exchange/stream_socket.py": (
        "on sockets: tests/unit/streamer/exchange/test_connection.py"
    ),
    "streamer/health/telemetry.py": (
        "read by tests/unit/streamer/health/test_metrics.py and test_health.py"
    ),
    "streamer/candles/events.py": "received by tests/unit/streamer/played_exchange.py",
    "streamer/exchange/feed.py": "through its heirs: tests/unit/streamer/candles/test_feed.py",
    "streamer/candles/minutes.py": (
        "what the aggregator knows: tests/unit/streamer/candles/test_aggregation.py"
    ),
    "cli/commands/compare.py": "typed as a person would in tests/integration/jobs/",
    "cli/commands/trade_dumps.py": "typed as a person would in tests/integration/jobs/",
    "include/jobs/klines/dump_files.py": BY_TRADE_DUMPS,
    "include/jobs/klines/dump_loading.py": BY_A_BACKFILL,
    "include/jobs/trades/file_edges.py": BY_TRADE_DUMPS,
    "include/jobs/trades/planning.py": BY_TRADE_DUMPS,
    "include/jobs/trades/folds.py": BY_TRADE_DUMPS,
    "include/jobs/trades/pieces.py": BY_TRADE_DUMPS,
    "include/store/trades/frames.py": BY_TRADE_DUMPS,
    "include/jobs/exchange.py": BY_A_BACKFILL,
    "include/jobs/instruments.py": BY_A_BACKFILL,
    "include/jobs/files/inbox_folder.py": (
        "with what is loaded: tests/integration/jobs/files/test_inbox.py"
    ),
    "include/jobs/klines/minutes.py": BY_A_BACKFILL,
    "include/jobs/klines/pieces.py": BY_A_BACKFILL,
    "include/jobs/klines/planning.py": BY_A_BACKFILL,
    "include/jobs/klines/repair.py": BY_A_BACKFILL,
    **dict.fromkeys(QUALITY, "fault by fault, run by run: tests/integration/quality/"),
    "include/config_of_jobs.py": "a part of include.config: tests/unit/include/test_config.py",
    "simulator/http/broken_answers.py": "in tests/integration/simulator/rest/test_faults.py",
    "simulator/cli.py": "tests/integration/simulator/test_process.py",
    "simulator/control/api.py": BY_A_WHOLE_SIMULATOR,
    "simulator/faults/connections.py": FAULTS_ON_SOCKETS,
    "simulator/faults/engine.py": FAULTS_ON_SOCKETS,
    "simulator/faults/kinds.py": "a table, read by tests/unit/simulator/faults/test_plan.py",
    "simulator/faults/market.py": FAULTS_ON_SOCKETS,
    "simulator/control/faults.py": FAULTS_ON_SOCKETS,
    "simulator/faults/startup.py": "tests/integration/simulator/faults/test_startup.py",
    "simulator/faults/rules.py": FAULTS_ON_SOCKETS,
    "simulator/market/hours/kline_pages.py": (
        "pages over halts: tests/unit/simulator/market/trades/test_sessions.py"
    ),
    "simulator/streams/feeds/books.py": EVERY_STREAM,
    "simulator/streams/feeds/derivatives.py": EVERY_STREAM,
    "simulator/streams/feeds/trades.py": BY_A_WHOLE_SIMULATOR,
    "simulator/streams/feeds/tickers.py": EVERY_STREAM,
    "simulator/wire/payloads.py": BY_A_WHOLE_SIMULATOR,
    "simulator/http/listeners.py": "its cuts: tests/integration/simulator/rest/test_faults.py",
    "simulator/market/history.py": THE_MARKETS_INSIDE,
    "simulator/market/klines.py": THE_MARKETS_INSIDE,
    "simulator/rest/books.py": "with the tickers: tests/integration/simulator/rest/test_tickers.py",
    "simulator/rest/endpoints.py": BY_A_WHOLE_SIMULATOR,
    "simulator/rest/parameters.py": BY_A_WHOLE_SIMULATOR,
    "simulator/server.py": BY_A_WHOLE_SIMULATOR,
    "simulator/market/trades/columns.py": THE_MARKETS_INSIDE,
    "simulator/market/trades/generator.py": THE_MARKETS_INSIDE,
    "simulator/replay/venue.py": "asked by tests/integration/simulator/replay/test_player.py",
    "simulator/rest/venue.py": BY_A_WHOLE_SIMULATOR,
    "simulator/streams/connections.py": BY_A_WHOLE_SIMULATOR,
    "streamer/app.py": BY_A_WHOLE_STREAMER,
    "include/config_of_serving.py": "every setting: tests/unit/include/test_config.py",
    "include/store/trades/analytics.py": OF_BUILT_MARTS,
    "serving/http/routes/analytics.py": OF_BUILT_MARTS,
    "serving/auth/middleware.py": "with the accounts that it knows: test_accounts.py beside it",
    "serving/app.py": ASKED_BY_A_CLIENT,
    "serving/http/routes/candles.py": ASKED_BY_A_CLIENT,
    "serving/http/description.py": ASKED_BY_A_CLIENT,
    "serving/http/routes/health.py": ASKED_BY_A_CLIENT,
    "serving/problems.py": ASKED_BY_A_CLIENT,
    "serving/http/routes/page.py": ASKED_BY_A_CLIENT,
    "serving/http/routes/statistics.py": ASKED_BY_A_CLIENT,
    "serving/http/routes/symbols.py": ASKED_BY_A_CLIENT,
    "serving/websocket/ticks.py": ASKED_BY_A_CLIENT,
    "serving/udf/routes.py": ASKED_BY_A_CLIENT,
    "serving/websocket/endpoint.py": ASKED_BY_A_CLIENT,
    "serving/read_pool.py": "with the calls that read: tests/integration/serving/",
    "serving/process.py": BEFORE_A_STREAMER,
    "serving/serve.py": BEFORE_A_STREAMER,
}
