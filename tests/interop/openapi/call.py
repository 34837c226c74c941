"""Calls a server with a client that openapi-generator has made."""

import sys
import time

from openapi_client import ApiClient, Configuration, CreateRequest, RequestManagerApi, State
from openapi_client.exceptions import NotFoundException

api = RequestManagerApi(ApiClient(Configuration(host=sys.argv[1])))
request = api.request_manager_create(CreateRequest(Type="nap", Args={"ms": "1"}), idempotency_key="python")
while request.state != State.STATE_COMPLETE:
    time.sleep(0.05)
    request = api.request_manager_get(request.id)
log = api.request_manager_get_log(request.id)
try:
    api.request_manager_get("nosuch")
except NotFoundException as error:
    print("complete", request.finished_jobs, "log", len(log), "error", error.status)
