# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Count failed requests while a product is released.

Requests go out at a steady rate over keep-alive HTTP/1.1 connections, together with open WebSockets. What is counted, and how fast
requests go out, is decided here; h11 and wsproto parse what comes back. Clients do not retry, but for an idempotent request that
crossed with the close of an idle connection (Http1Client).

Durations are seconds in settings and milliseconds in results.
"""
