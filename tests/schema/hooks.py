"""Keeps a schemathesis run able to go on, and lets it reach what cannot be guessed.

The run's own user, whose token every request carries, and the switch of live queries are left alone: whoever revokes
their own token, or switches live queries off, tests nothing afterwards. Every other request that names a host names
one of the demo's."""

import itertools
import os

import requests
import schemathesis

OWN_USER = "1"
TURN = itertools.count()
HOSTS = []


def hosts(base_url):
    if not HOSTS:
        headers = {"Authorization": "Bearer " + os.environ.get("ANSWERBACK_API_TOKEN", "")}
        listed = requests.get(base_url + "/hosts", headers=headers, timeout=20).json()
        HOSTS.extend(host["hostname"] for host in listed.get("hosts", []))
    return HOSTS


def fits_the_document(case):
    generation = getattr(case.meta, "generation", None)
    mode = getattr(generation, "mode", None)
    return getattr(mode, "value", mode) == "positive"


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path
    parameters = case.path_parameters or {}
    if path.startswith("/users/{id}") and str(parameters.get("id")) == OWN_USER:
        case.path_parameters["id"] = 999
    named = path.startswith("/hosts/identifier/{identifier}") and fits_the_document(case)
    if named and next(TURN) % 2:
        known = hosts(case.operation.base_url)
        if known:
            case.path_parameters["identifier"] = known[next(TURN) % len(known)]
    if path == "/config" and isinstance(case.body, dict):
        settings = case.body.get("server_settings")
        if isinstance(settings, dict) and settings.get("live_query_disabled") is True:
            settings["live_query_disabled"] = False
