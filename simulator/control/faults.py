"""`/sim/faults`: add, list and remove faults."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.faults.engine import FaultEngine
from simulator.faults.plan import PlanError, parse_plan

_MAX_BODY_BYTES = 4 << 20


def fault_routes(engine: FaultEngine) -> list[Route]:
    """POST a plan, GET all faults, DELETE one; GET `/sim/faults/plan` returns a plan file."""

    async def post(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BODY_BYTES:
                message = f"the plan has more than {_MAX_BODY_BYTES} bytes; send it in parts"
                return _json({"code": -1100, "msg": message}, status=413)
        try:
            identities = engine.add(parse_plan(bytes(body), name="body"))
        except PlanError as error:
            return _json({"code": -1100, "msg": str(error)}, status=400)
        return _json({"ids": identities})

    async def get(_request: Request) -> Response:
        return _json(engine.listed())

    async def plan(_request: Request) -> Response:
        return Response(engine.plan(), media_type="application/json")

    async def delete(request: Request) -> Response:
        identity = request.path_params["identity"]
        try:
            engine.remove(identity)
        except KeyError:
            return _json({"code": -1100, "msg": f"no fault has the id {identity!r}"}, status=404)
        except PlanError as error:
            return _json({"code": -1100, "msg": str(error)}, status=409)
        return _json({"removed": identity})

    return [
        Route("/sim/faults", post, methods=["POST"]),
        Route("/sim/faults", get, methods=["GET"]),
        Route("/sim/faults/plan", plan, methods=["GET"]),
        Route("/sim/faults/{identity}", delete, methods=["DELETE"]),
    ]


def _json(body: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")
