# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several modules and actions say of themselves."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes; each is a fragment of its own."""

    READS = r"""
attributes:
  check_mode:
    description: Reads only, so check mode makes no difference.
    support: full
"""

    NOTHING_TO_SHOW = r"""
attributes:
  diff_mode:
    description: Changes nothing, and so shows nothing.
    support: none
"""

    NOT_IN_CHECK_MODE = r"""
attributes:
  check_mode:
    description: Not called in check mode, as M(slipway.stack.service_plan) and M(slipway.stack.release_plan) say what would be done.
    support: none
"""

    CONTROLLER = r"""
attributes:
  platform:
    description: Runs on the controller only, and asks no host.
    platforms: posix
    support: full
"""
