# The front door. What a target does is in the script it calls; settings are variables: make demo LAB=second LAB_HTTPS_PORT=9443
export LAB ?= lab
export TOPOLOGY ?= one
export DEMO_VERSION ?= 1.0.0
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport MAKEFLAGS
.DEFAULT_GOAL := help
.PHONY: help tools image images logs shell lab demo check test test-all lint unit sanity changelog scenario molecule e2e bench clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo '  Settings: LAB=lab TOPOLOGY=one|fleet|cluster LAB_HTTPS_PORT=8443 LAB_HTTP_PORT=8080 DEMO_VERSION=1.0.0 VERSION=1.1.0 INVENTORY=inventories/lab SERVICE=backend S=scenario K=test'

demo: ## Deploy the support desk to lab hosts: from nothing to https://localhost:8443
	@lab/demo

lab: ## Bring up the lab hosts alone, to deploy to by hand
	@lab/step tools lab/tools
	@lab/step engine lab/engine
	@lab/step images lab/images
	@lab/step 'lab hosts' lab/up

# The product's images of a version, and what they are, for the environment in INVENTORY.
image: INVENTORY ?= inventories/$(LAB)
image: ## Build the product: make image VERSION=1.1.0 [INVENTORY=inventories/shop]
	@lab/step tools lab/tools
	@lab/step 'image$(if $(VERSION), $(VERSION))' ansible-playbook playbooks/build.yml -i $(INVENTORY) $(if $(VERSION),-e app_version=$(VERSION))

logs: INVENTORY ?= inventories/$(LAB)
logs: ## Follow the logs of all hosts: make logs [SERVICE=backend] [INVENTORY=inventories/shop]
	@ansible-playbook playbooks/logs.yml -i $(INVENTORY) -e follow=true $(if $(SERVICE),-e service=$(SERVICE))

shell: INVENTORY ?= inventories/$(LAB)
shell: ## Open a shell in a container of a service: make shell SERVICE=backend [INVENTORY=inventories/shop]
	@ansible-playbook playbooks/shell.yml -i $(INVENTORY) -e service=$(SERVICE)

images: ## Build or pull the images that the lab needs
	@lab/step engine lab/engine
	@lab/step images lab/images

tools: ## Install Ansible, Molecule and the linters into .venv
	@lab/step tools lab/tools

check: ## Before each commit, in a minute: lint, types, and the unit tests that start no program
	@lab/test check

test: ## Lint, all unit tests, the product's, and the main lane of every Molecule scenario
	@lab/test lint unit product molecule

test-all: ## The same with every test of every scenario, which takes hours
	@SLIPWAY_LANE=all lab/test lint unit product molecule

lint: ## Check style, types and rules
	@lab/test lint

unit: ## All unit tests, and the checks of sanity, without Docker
	@lab/test unit

sanity: ## What others check: ansible-test sanity, galaxy-importer, antsibull-docs
	@lab/test sanity

changelog: ## Write the changelog of a version from its fragments; after make sanity, which installs what does it
	@ANSIBLE_COLLECTIONS_PATH=collections .lab/checks/bin/antsibull-changelog release

scenario: ## One scenario's tests against a lab that stays up: make scenario S=release K=test_two_releases
	@lab/step tools lab/tools
	@lab/scenario '$(S)' '$(K)'

molecule: ## Run the Molecule scenarios: SLIPWAY_LANE=main, all, or shards; SCENARIOS="default cluster"
	@lab/test molecule

e2e: ## Test the product of a lab that is up through a browser
	@lab/test e2e

bench: ## Measure no-ops, first deploys, releases, backups and the mesh into reports/bench-latest.json
	@lab/step tools lab/tools
	@tests/bench/run

clean: ## Remove all labs; IMAGES=remove also their images and the build cache
	@lab/clean
