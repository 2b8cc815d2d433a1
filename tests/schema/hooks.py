"""Keeps a schemathesis run able to go on: its own user, whose token every request carries, and the switch of live
queries are left alone. Whoever revokes their own token, or switches live queries off, tests nothing afterwards."""

import schemathesis

OWN_USER = "1"


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path
    parameters = case.path_parameters or {}
    if path.startswith("/users/{id}") and str(parameters.get("id")) == OWN_USER:
        case.path_parameters["id"] = 999
    if path == "/config" and isinstance(case.body, dict):
        settings = case.body.get("server_settings")
        if isinstance(settings, dict) and settings.get("live_query_disabled") is True:
            settings["live_query_disabled"] = False
