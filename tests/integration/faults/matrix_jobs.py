"""The matrix's cells of the jobs: backfill, repair of gaps, instruments, import."""

from __future__ import annotations

from tests.integration.faults.cells import Cell

BACKFILL: dict[str, Cell] = {
    # --- the market
    "halt": Cell(
        happens="loads what there is; the minutes of the halt become `ops.outages` (on USD-M they "
        "are rows without trades, as at the exchange)",
        events=("outage_recorded",),
        exit_code=0,
    ),
    "delisting": Cell(
        happens="loads up to the last minute. The first day after it counts as an outage, later "
        "ones are not asked for",
        exit_code=0,
    ),
    "new_listing": Cell(
        happens="loads from the first minute on; what lies before is neither missing nor an outage",
        exit_code=0,
    ),
    "ticker_reuse": Cell(
        happens="loads both instruments' minutes under the one name; the time between is an outage",
        events=("outage_recorded",),
        exit_code=0,
    ),
    # --- REST
    "rest_lag": Cell(
        happens="takes minutes that ended 30 s ago or earlier; a lag below that does no harm. Of a "
        "longer one, leaves out the last row of an answer that may be unfinished: it stays missing",
        exit_code=0,
    ),
    "slow_rest": Cell(
        happens="waits up to `HTTP_TIMEOUT_S`, then tries again, five times in all", exit_code=0
    ),
    "rest_error": Cell(
        happens=(
            "retries 5xx, five attempts in all, and waits as long as a 429 demands. A piece "
            "that still fails is named, the others are loaded. A ban (418) or a refusal (403, 451) "
            "ends it immediately"
        ),
        events=("piece_failed",),
        exit_code=1,
        says="run it again: only what is missing will be loaded",
        todo="run it again when the cause is gone",
    ),
    "rest_malformed": Cell(happens="tries again, five times in all", exit_code=0),
    "rest_cut": Cell(happens="tries again, five times in all", exit_code=0),
    "rest_stale": Cell(
        happens=(
            "retries until the rows arrive; records no outage from a page that lacks its last rows"
        ),
        exit_code=0,
    ),
    # --- dumps
    "corrupt_zip": Cell(
        happens="fetches the file once more if it does not fit its CHECKSUM; then REST stands in. "
        "Nothing of a file is used before all of it was read",
        events=("dump_unusable",),
        verdicts=("wrong_checksum", "corrupt", "loaded"),
        exit_code=0,
    ),
    "truncated_zip": Cell(
        happens="as with a corrupt file",
        events=("dump_unusable",),
        verdicts=("wrong_checksum", "corrupt", "loaded"),
        exit_code=0,
    ),
    "stale_checksum": Cell(
        happens="does not use what cannot be verified; REST stands in",
        events=("dump_unusable",),
        verdicts=("wrong_checksum",),
        exit_code=0,
    ),
    "missing_checksum": Cell(
        happens="does not use what cannot be verified; REST stands in",
        events=("dump_unusable",),
        verdicts=("missing",),
        exit_code=0,
    ),
    "truncated_day": Cell(
        happens="loads the existing rows and asks REST for the others",
        events=("dump_lacks_minutes",),
        verdicts=("loaded",),
        exit_code=0,
    ),
    "missing_day": Cell(happens="takes the day from REST", exit_code=0),
    "late_publication": Cell(
        happens="loads days that are not published yet from REST", exit_code=0
    ),
    "reissued": Cell(
        happens=(
            "loads the published file. A later run notices the re-issue, loads it again, and "
            "stores differing values in `ops.discrepancies`"
        ),
        verdicts=("loaded",),
        exit_code=0,
        todo="run the backfill of the range again; the newer publication wins",
    ),
    "monthly_differs": Cell(
        happens=(
            "loads the month. If a daily file or REST differs, its values win and the month's "
            "are stored in `ops.discrepancies`"
        ),
        verdicts=("loaded",),
        exit_code=0,
        todo="if it matters, load the days as well: a plan with `verify` does",
    ),
    "slow_download": Cell(happens="waits", verdicts=("loaded",), exit_code=0),
    "cut_download": Cell(
        happens="fetches the file again, four times in all; then REST stands in",
        verdicts=(
            "loaded",
            "unreachable",
        ),
        exit_code=0,
    ),
    "download_error": Cell(
        happens="tries 5xx again, four times in all; then, or where the file is refused, REST "
        "stands in",
        verdicts=(
            "loaded",
            "unreachable",
            "refused",
        ),
        exit_code=0,
    ),
    "listing_error": Cell(
        happens="tries again, four times in all; then takes everything from REST and says so. A "
        "refusal (403, 451) ends it: the whole site is closed to you",
        events=("dumps_not_listed",),
        exit_code=0,
        todo="for long spans: run it again later, files are cheaper",
    ),
}

REPAIR_GAPS: dict[str, Cell] = {
    "halt": Cell(happens="records the outage and closes the gap", events=("outage_recorded",)),
    "delisting": Cell(
        happens="repairs up to the last minute, records the rest as an outage, closes the gap",
        events=("outage_recorded",),
    ),
    "new_listing": Cell(happens="repairs from the first minute on and closes the gap"),
    "ticker_reuse": Cell(
        happens="repairs both instruments' minutes, records the outage between, closes the gap",
        events=("outage_recorded",),
    ),
    "rest_lag": Cell(
        happens="repairs what ended 30 s ago or earlier; a lag below does no harm. Of a longer "
        "one, takes no last row that may be unfinished: the gap stays open until the next run",
    ),
    "slow_rest": Cell(happens="waits up to `HTTP_TIMEOUT_S`, then tries again, five times in all"),
    "rest_error": Cell(
        happens="tries 5xx again, five times in all. After that and at 429 or 418 the task fails; "
        "Airflow tries it again, and its claims expire. At a refusal (403, 451) the gap says why "
        "and stays open",
        events=("gap_not_repairable",),
        todo="look at `detail` in `ops.gaps` where one stays open",
    ),
    "rest_malformed": Cell(happens="tries again, five times in all"),
    "rest_cut": Cell(happens="tries again, five times in all"),
    "rest_stale": Cell(happens="retries until the rows arrive"),
}

SYNC_INSTRUMENTS: dict[str, Cell] = {
    "halt": Cell(happens="writes the status", events=("instrument_status_changed",)),
    "delisting": Cell(
        happens="writes the status; the row stays", events=("instrument_status_changed",)
    ),
    "new_listing": Cell(happens="adds a row and names the symbol", events=("instruments_new",)),
    "ticker_reuse": Cell(
        happens=(
            "writes the status as it changes; a new row begins if the exchange publishes "
            "another start or had removed it, and if trade ids of streamed minutes restart"
        ),
        events=("instrument_status_changed",),
    ),
    "slow_rest": Cell(happens="waits up to `HTTP_TIMEOUT_S`, then tries again, five times in all"),
    "rest_error": Cell(
        happens="tries 5xx again, five times in all, then the task fails and Airflow tries it "
        "again; the stored rows stay as they are",
        todo="at 403 or 451: set `HTTPS_PROXY`",
    ),
    "rest_malformed": Cell(happens="tries again, five times in all; then as with errors"),
    "rest_cut": Cell(happens="tries again, five times in all; then as with errors"),
}

IMPORT: dict[str, Cell] = {
    "corrupt_zip": Cell(
        happens="refuses the file before any row of it is used; the other files are loaded",
        exit_code=1,
        says="is damaged",
        todo="fetch the file again",
    ),
    "truncated_zip": Cell(
        happens="refuses the file before any row of it is used; the other files are loaded",
        exit_code=1,
        says="is damaged",
        todo="fetch the file again",
    ),
    "truncated_day": Cell(
        happens="loads the existing rows",
        exit_code=0,
        todo="backfill the day: it requests what is missing",
    ),
    "reissued": Cell(
        happens="loads the file as it is, as `unconfirmed`; anything the exchange says later wins",
        exit_code=0,
    ),
    "monthly_differs": Cell(
        happens="loads the file as it is, as `unconfirmed`; anything the exchange says later wins",
        exit_code=0,
    ),
}
