# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that say what follows from the services of a product. Each has its documentation in a file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.slipway.stack.plugins.plugin_utils import app_services, extra_services
from ansible_collections.slipway.stack.plugins.plugin_utils.host_view import role_folders


def app_mistakes(product: Mapping[str, Any], publish_address: str = "", slot_port_offset: int = app_services.SLOT_PORT_OFFSET) -> list[str]:
    """Return a sentence for each mistake in the description of a product."""
    return [f"{where} {text}" for where, text in app_services.mistakes(product, publish_address, int(slot_port_offset))]


def extra_services_leftovers(state: Mapping[str, Any], stack: str, declared: Sequence[str]) -> list[str]:
    """Return the folders of extra services that are not described any more, and whose containers never came."""
    return extra_services.leftovers(state, stack, declared, role_folders())


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "app_balanced": app_services.balanced,
            "app_builds": app_services.builds,
            "app_command_service": app_services.command_service,
            "app_declarations": app_services.declarations,
            "app_here": app_services.here,
            "app_image_differences": app_services.image_differences,
            "app_image_ids": app_services.image_ids,
            "app_images": app_services.images,
            "app_jobs": app_services.jobs,
            "app_limits_clients": app_services.limits_clients,
            "app_migrating_group": app_services.migrating_group,
            "app_mistakes": app_mistakes,
            "app_ports": app_services.published_ports,
            "app_registry_login": app_services.registry_login,
            "app_summary": app_services.summary,
            "extra_services_declarations": extra_services.declarations,
            "extra_services_leftovers": extra_services_leftovers,
            "nginx_sites": app_services.sites,
            "nginx_upstreams": app_services.upstreams,
        }
