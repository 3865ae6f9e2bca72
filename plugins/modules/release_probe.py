#!/usr/bin/python
# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, where Ansible looks for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_probe
short_description: Count failed requests while a product is released
version_added: 0.1.0
description:
  - Starts a prober on the controller that sends requests at a steady rate through the balancers, and keeps WebSockets open. Later
    tasks, also of other hosts and forks, mark moments, read its numbers and stop it.
  - No remote call is made.
  - Clients do not retry, with one exception that RFC 9112 (section 9.3.1) allows and browsers make. A GET is sent once more, on a new
    connection, if the connection had carried requests before and was closed before a byte of this answer came.
  - It always ends, by O(state=stopped), at its deadline, or within two seconds when ansible-playbook is gone.
  - The prober's files, its settings among them, are in a new folder that only the user can read. Give the task C(no_log) when
    O(headers) or O(post_body) hold secrets.
options:
  state:
    description:
      - V(started) starts a prober and returns when it has its first answers or failures.
      - V(marked) names this moment. What happens after the task counts from there.
      - V(read) returns the numbers, and fails when the prober does not run any more, as they would say nothing about now, or when since
        O(mark) no request was answered or failed, as nothing was measured then.
      - V(stopped) waits for answers that are still due, ends the prober, removes its files and returns the totals. It never fails, so
        that it can be used in an C(always) section.
    type: str
    required: true
    choices: [started, marked, read, stopped]
  state_file:
    description: The prober's state file, as O(state=started) returned it. Required for all other states.
    type: path
  deadline_seconds:
    description: The longest that the prober runs, a day at most. Required for O(state=started).
    type: float
  wait:
    description: Whether O(state=started) waits for the first answers or failures. The next mark waits for the prober, if not for these.
    type: bool
    default: true
  mark:
    description: Name of the moment; for O(state=read), the mark to count from. At most 40 marks are taken.
    type: str
  targets:
    description: Where requests go, in turn. Each has C(address), C(port) and C(server_name), the name that is asked for there.
    type: list
    elements: dict
  tls:
    description: Whether targets speak TLS. The default is V(true).
    type: bool
  verify:
    description: Whether certificates are checked. The default is V(true).
    type: bool
  ca_file:
    description: File on the controller with the CA that certificates must come from. By default the controller's own list is used.
    type: path
  rate:
    description: Requests a second over all targets. A late answer does not slow it. The default is V(10).
    type: float
  connections:
    description: Keep-alive connections over all targets, which take turns. The default is V(4).
    type: int
  connections_max:
    description: Most connections while answers are late; requests wait for one beyond it. The default is five times O(connections).
    type: int
  path:
    description: Path of GET requests. The default is V(/health).
    type: str
  path_if_missing:
    description: Path of GET requests instead, where the first target answers 404 to O(path) when the prober starts.
    type: str
  post_share:
    description: Share of the requests that are POST, from 0 to 1. The default is V(0).
    type: float
  post_path:
    description: Path of POST requests.
    type: str
  post_body:
    description: Body of POST requests.
    type: str
  post_content_type:
    description: Media type of that body. The default is V(application/json).
    type: str
  headers:
    description: Further headers of all requests and WebSockets.
    type: dict
  accepted_statuses:
    description: Statuses that count as answered, such as V(204) or V(200-399). The default is V(200-399).
    type: list
    elements: str
  timeout_seconds:
    description: How long after it was due a request may take. The default is V(10).
    type: float
  version_header:
    description: Response header that says which version or instance answered.
    type: str
  version_json_field:
    description: Field of a JSON answer that says so, with dots between levels. The header goes first.
    type: str
  websockets:
    description: How many WebSockets are kept open over all targets. The default is V(0).
    type: int
  websocket_path:
    description: Path of WebSockets. The default is V(/ws).
    type: str
  websocket_ping_seconds:
    description: Mean time between two pings on a WebSocket. The default is V(5).
    type: float
  websocket_reconnect_seconds:
    description: Shortest and longest wait before a WebSocket that was ended is opened again. The default is V([0.05, 1]).
    type: list
    elements: float
requirements:
  - h11 and wsproto in the Python of the controller
extends_documentation_fragment:
  - slipway.stack.attributes.controller
attributes:
  check_mode:
    description: Starts nothing and returns an empty RV(state_file); all other states accept that.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The Slipway authors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Watch the balancers
  slipway.stack.release_probe:
    state: started
    targets: [{address: 192.0.2.10, port: 443, server_name: desk.example.com}]
    rate: 10
    path: /ready
    version_json_field: version
    deadline_seconds: 900
  register: __app_probe
  run_once: true

- name: Count from the switch on
  slipway.stack.release_probe:
    state: marked
    state_file: "{{ __app_probe.state_file }}"
    mark: switch
  run_once: true

- name: Fail if more requests failed than release_failure_budget
  slipway.stack.release_probe:
    state: read
    state_file: "{{ __app_probe.state_file }}"
    mark: switch
  register: __app_probe_read
  failed_when: __app_probe_read is failed or __app_probe_read.since.failed > release_failure_budget
  run_once: true

- name: Stop watching
  slipway.stack.release_probe:
    state: stopped
    state_file: "{{ __app_probe.state_file }}"
  register: __app_probe_totals
  run_once: true
"""

RETURN = r"""
state_file:
  description: Path by which other tasks find the prober.
  returned: success
  type: str
running:
  description: Whether the prober runs.
  returned: success
  type: bool
ended:
  description: What ended it, one of V(stopped), V(deadline), V(SIGTERM), V(SIGINT), V(died), V(not running); empty while it runs.
  returned: success
  type: str
since:
  description:
    - The numbers since the mark, or in total when none was named. Durations are milliseconds.
    - C(reopened) counts connections that were opened again after the server had closed them while idle. Of these,
      C(retried_idle_closes) were closed while a request was on its way, which was sent again.
  returned: success
  type: dict
  sample:
    requests: 9000
    failed: 0
    reopened: 12
    retried_idle_closes: 1
    longest_gap_ms: 52.1
    longest_lag_ms: 3.2
    latency_ms: {p50: 4.1, p99: 19.8, max: 44.0}
    first_success: "2026-01-31T10:00:00.000Z"
    last_success: "2026-01-31T10:00:45.000Z"
    versions: {"1.4.0": {answers: 4000, failed: 0}, "1.5.0": {answers: 5000, failed: 0}}
    clients: {http1: {requests: 9000}}
    websockets: 50
    websockets_opened: 100
    websockets_closed: {"1012": 50}
    websockets_cut: 0
    websockets_refused: 0
    websockets_reconnected: 50
    longest_websocket_absence_ms: 990.0
probe:
  description:
    - The same in total, with C(failures) (the first 50, each with C(time), C(kind), C(reason), C(target), C(request)), C(started),
      C(seconds), C(in_flight), C(websockets_open), and C(marks), each with C(name), C(time), and the numbers C(since) it and C(until_next).
    - C(longest_lag_ms) is how late the prober itself was; a gap of that size may be the controller's.
  returned: success
  type: dict
"""
