# SPDX-License-Identifier: GPL-3.0-or-later
# Everything made goes below build/, but for the C parts and the generated checks, which Python
# looks for beside its sources.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# By its full path: another python3 may come first in PATH, without the distribution's bindings.
HOST_PYTHON := /usr/bin/python3
VENV := $(CURDIR)/build/venv
PYTHON := $(VENV)/bin/python
PREFIX ?= /usr/local
RUNTIME ?= build/ocirt
CC := gcc

# python3-prctl and python3-seccomp: PyPI's python-prctl needs libcap's headers to build, and the
# libseccomp binding is only released by distributions. The virtual environment sees both.
DEBIAN := gcc binutils libc6-dev libcap-dev zlib1g-dev linux-libc-dev python3-dev python3-venv python3-prctl python3-seccomp \
	busybox-static uidmap iproute2
# What the tests of manual pages, completion and interactive shells ask.
SHELLS := groff-base man-db mandoc bash-completion zsh fish tmux
# What tests/engines runs with ocirt as its runtime; runc, the control, comes with containerd.
ENGINES := podman conmon containerd containernetworking-plugins iptables
NEEDED := 'jsonschema>=4.10' 'fastjsonschema>=2.16' 'pyroute2>=0.7'
# The tools whose verdict changes from release to release are held.
TOOLS := 'pytest>=7' 'hypothesis>=6' 'ruff==0.17.*' 'mypy==2.4.*' 'import-linter==2.*' types-jsonschema
# mypy refuses a directory without Python in it.
TYPED = $(foreach d,ocirt tests bundles bench conformance,$(if $(wildcard $(d)/*.py $(d)/*/*.py),$d))
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action=ignore

# Asked in recipes only: while make reads this file, setup may not have installed Python yet.
SYSCONFIG = $(HOST_PYTHON) -Ic 'import sysconfig; print(sysconfig.$(1))'
WARNINGS := -std=c11 -Wall -Wextra -Werror
# A static program without a C library, as small as it gets: a waiting container is charged for it.
STUB_FLAGS := -Os -static -nostdlib -nostartfiles -ffreestanding -fno-builtin \
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
	-fno-unwind-tables -fno-pie -no-pie \
	-Wl,--build-id=none,-z,norelro,-z,noexecstack,-z,noseparate-code -s

PACKAGE = $(shell find ocirt -name '*.py' -o -name '*.[ch]' -o -name '*.ld' -o -name 'sources.txt')

.PHONY: help setup build compiled demo lint test unit integration engines conformance \
	conformance-page bench install install-docs clean

help:
	@echo 'make setup        install what is needed from Debian and PyPI (as root)'
	@echo 'make build        leave the runtime as build/ocirt'
	@echo 'make demo         run bundles/hello (as root)'
	@echo 'make test         lint, then all tests (as root)'
	@echo 'make lint | unit | integration | engines    parts of it; RUNTIME=PATH tests another runtime'
	@echo 'make conformance  the specification, demand by demand (as root); RUNTIME=PATH, TAP=FILE;'
	@echo '                  RUNTIME_TOOLS=DIR runs the programs of OCI runtime-tools, too'
	@echo 'make conformance-page    run it with runc and crun, too, and write docs/conformance.md'
	@echo 'make bench        time it beside runc and crun (as root); BENCH=--help has options'
	@echo 'make install      install below PREFIX ($(PREFIX))'
	@echo 'make clean        remove what build made, but for the virtual environment'

setup:
	@if ! command -v apt-get >/dev/null; then \
		echo 'make setup installs Debian packages, and this system has no apt-get.' >&2; \
		echo 'Install what these are called here, then run make build: $(DEBIAN)' >&2; \
		exit 1; \
	fi
	@missing=(); for package in $(DEBIAN) $(SHELLS) $(ENGINES); do \
		[[ "$$(dpkg-query -W -f '$${Status}' $$package 2>/dev/null)" == *' installed' ]] \
			|| missing+=($$package); \
	done; \
	if (($${#missing[@]})); then \
		if ((EUID)); then echo "as root: apt-get install $${missing[*]}" >&2; exit 1; fi; \
		apt-get update -qq; \
		DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends "$${missing[@]}"; \
	fi
	@$(MAKE) --no-print-directory build/venv.stamp

$(PYTHON):
	$(HOST_PYTHON) -m venv --system-site-packages $(VENV)

# Depends on the list of packages in this file; touches only what is missing or too old.
build/venv.stamp: Makefile | $(PYTHON)
	$(PIP) $(NEEDED) $(TOOLS)
	@touch $@

build: build/ocirt

build/_linux.stamp: ocirt/kernel/_linux.c ocirt/kernel/raw.h
	$(CC) $(WARNINGS) -O2 -shared -fPIC -I"$$($(call SYSCONFIG,get_path("include")))" $< \
		-o "ocirt/kernel/_linux$$($(call SYSCONFIG,get_config_var("EXT_SUFFIX")))"
	@mkdir -p build && touch $@

ocirt/kernel/stub: ocirt/kernel/stub.c ocirt/kernel/raw.h
	$(CC) $(WARNINGS) $(STUB_FLAGS) $< -o $@

build/checks.stamp: $(wildcard ocirt/spec/*.py schemas/*.json schemas/*/*.json) | build/venv.stamp
	$(PYTHON) -m ocirt.spec.compile
	@touch $@

compiled: build/_linux.stamp ocirt/kernel/stub build/checks.stamp

# launcher INTERPRETER,DIRECTORY: a script that works in any directory and without environment.
# The kernel cuts a "#!" line at 127 bytes (255 since 5.1): a longer one goes through the shell,
# which reads the first two lines as a command and Python as a string.
define launcher
interpreter='$(1)'; \
{ if (($${#interpreter} < 120)); then printf '#!%s -I\n' "$$interpreter"; \
  else printf "#!/bin/sh\n'''exec' '%s' -I \"\$$0\" \"\$$@\"\n' '''\n" "$$interpreter"; fi; \
  printf 'import sys\n\nsys.path.insert(0, "%s")\nfrom ocirt.launch import main\n\n' '$(2)'; \
  printf 'sys.exit(main())\n'; }
endef

build/ocirt-plain: Makefile | compiled build/venv.stamp
	@$(call launcher,$(VENV)/bin/python3,$(CURDIR)) >$@.new
	@chmod 755 $@.new && mv $@.new $@

# image PLAIN_LAUNCHER,OUTPUT: exit status 3 says that this machine can't make one (docs/image.md).
define image
status=0; $(PYTHON) -m ocirt.image.build --plain '$(1)' --work build/image '$(2)' || status=$$?; \
if ((status == 3)); then rm -f '$(2)' && cp '$(1)' '$(2)'; elif ((status)); then exit $$status; fi
endef

build/ocirt: build/ocirt-plain build/checks.stamp build/_linux.stamp ocirt/kernel/stub $(PACKAGE)
	@$(call image,$(CURDIR)/build/ocirt-plain,$@)

demo: build
	@$(HOST_PYTHON) -I bundles/make.py hello build/bundles/hello
	@build/ocirt delete --force hello
	build/ocirt create --bundle build/bundles/hello hello
	build/ocirt state hello
	build/ocirt start hello
	@while [[ "$$(build/ocirt state hello)" != *'"stopped"'* ]]; do sleep 0.1; done
	build/ocirt delete hello

lint: build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy $(TYPED)
	$(VENV)/bin/lint-imports

unit: build
	$(PYTHON) -m pytest tests/unit

integration: build
	$(PYTHON) -m pytest tests/integration --runtime $(RUNTIME)

engines: build
	$(PYTHON) -m pytest tests/engines --runtime $(RUNTIME)

conformance: build
	$(PYTHON) -m pytest conformance --runtime $(RUNTIME) $(if $(TAP),--tap $(TAP))
ifdef RUNTIME_TOOLS
	$(PYTHON) -m conformance.tools --runtime $(RUNTIME) --tools $(RUNTIME_TOOLS)
endif

# ocirt first: the page shows the others beside it. A failing test is a result here.
RUNC := /usr/sbin/runc
CRUN := /usr/bin/crun
RESULTS := build/conformance

conformance-page: build
	@mkdir -p $(RESULTS)
	@for runtime in build/ocirt $(RUNC) $(CRUN); do \
		name=$(RESULTS)/$${runtime##*/}; \
		$(PYTHON) -m pytest conformance -q --tb=no --runtime $$runtime \
			--results $$name.json >$$name.log || (($$? == 1)); \
		if [[ -n '$(RUNTIME_TOOLS)' ]]; then \
			$(PYTHON) -m conformance.tools --runtime $$runtime --tools '$(RUNTIME_TOOLS)' \
				--json $$name-tools.json >$$name-tools.tap || (($$? == 1)); \
		fi; \
	done
	@names=(ocirt $(notdir $(RUNC) $(CRUN))); cd $(RESULTS); \
	tools=(); for name in "$${names[@]}"; do \
		if [[ -e $$name-tools.json ]]; then tools+=($$name-tools.json); fi; \
	done; \
	PYTHONPATH='$(CURDIR)' $(PYTHON) -m conformance.page "$${names[@]/%/.json}" \
		--tools "$${tools[@]}" >page.md
	@mv $(RESULTS)/page.md docs/conformance.md

# Everything with the image first, then the integration tests by plain Python.
test: lint
	$(PYTHON) -m pytest tests/unit tests/integration tests/engines --runtime $(RUNTIME)
	$(PYTHON) -m pytest tests/integration --runtime build/ocirt-plain
	$(PYTHON) -m pytest conformance --runtime $(RUNTIME)

bench: build
	@missing=(); for program in runc crun strace; do \
		command -v $$program >/dev/null || missing+=($$program); \
	done; \
	if (($${#missing[@]})); then \
		DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends "$${missing[@]}"; \
	fi
	$(PYTHON) -m bench --runtime $(RUNTIME) $(BENCH)

HOME_DIR = $(DESTDIR)$(PREFIX)/lib/ocirt

install: compiled install-docs
	install -d $(HOME_DIR) $(DESTDIR)$(PREFIX)/bin
	$(HOST_PYTHON) -m venv --system-site-packages $(HOME_DIR)/venv
	$(HOME_DIR)/venv/bin/python -m pip install --quiet --disable-pip-version-check \
		--root-user-action=ignore 'jsonschema>=4.10' 'pyroute2>=0.7'
	rm -rf $(HOME_DIR)/ocirt
	cp -a ocirt schemas $(HOME_DIR)/
	find $(HOME_DIR)/ocirt -name __pycache__ -prune -exec rm -rf {} +
	$(HOME_DIR)/venv/bin/python -m compileall -q $(HOME_DIR)/ocirt
	@$(call launcher,$(PREFIX)/lib/ocirt/venv/bin/python3,$(PREFIX)/lib/ocirt) \
		>$(HOME_DIR)/ocirt-plain
	chmod 755 $(HOME_DIR)/ocirt-plain
	@status=0; $(PYTHON) -m ocirt.image.build --plain $(PREFIX)/lib/ocirt/ocirt-plain \
		--work build/image-install $(DESTDIR)$(PREFIX)/bin/ocirt || status=$$?; \
	if ((status == 3)); then cp $(HOME_DIR)/ocirt-plain $(DESTDIR)$(PREFIX)/bin/ocirt; \
	elif ((status)); then exit $$status; fi

# Manual pages and completion, from the table of options.
install-docs:
	$(PYTHON) -m ocirt.cli.man $(DESTDIR)$(PREFIX)/share/man/man1
	$(PYTHON) -m ocirt.cli.completion $(DESTDIR)$(PREFIX)/share

clean:
	rm -rf build/ocirt build/ocirt-plain build/image* build/bundles build/conformance build/*.stamp
	rm -f ocirt/kernel/_linux*.so ocirt/kernel/stub ocirt/spec/_checks_*.py
