"""Paths under `/futures/data`, which both futures markets have, on separate hosts.

Here they share a host. The market that lists the symbol or pair answers; USD-M if none does.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.market.instruments import MarketName
from simulator.rest.api import METHODS, Answer, RestApi, unknown_path


def futures_data_routes(apis: dict[MarketName, RestApi]) -> list[Route]:
    """Return the routes of both markets, and of the paths that neither has."""
    answers: dict[MarketName, dict[str, Answer]] = {
        name: api.futures_data() for name, api in apis.items() if name != "spot"
    }
    names = sorted({name for answer in answers.values() for name in answer})
    routes = [Route(f"/{name}", _answer(apis, name, answers), methods=["GET"]) for name in names]
    return [*routes, Route("/futures/{path:path}", unknown_path, methods=METHODS)]


def _answer(
    apis: dict[MarketName, RestApi], name: str, answers: dict[MarketName, dict[str, Answer]]
) -> Answer:
    async def answer(request: Request) -> Response:
        asked = request.query_params.get("pair") or request.query_params.get("symbol", "")
        offering = [market for market in answers if name in answers[market]]
        listing = [market for market in offering if apis[market].lists(asked)]
        return await answers[(listing or offering)[0]][name](request)

    return answer
