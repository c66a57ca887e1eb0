# The README's commands. `make test` passes on a fresh Debian machine with Go
# and make: what else it needs it installs (as root) or names.

SHELL       := /bin/bash
GO          ?= go
BIN         := bin
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT      ?= $(shell git rev-parse HEAD 2>/dev/null)
DATE        ?= $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS     := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)
CYCLONEDX   := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
GOLANGCI    := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
PACKAGES    ?= ./...
FUZZTIME    ?= 30s

# cgo is for the race detector only; the binary is static without it.
export CGO_ENABLED ?= 0

.PHONY: build test test-program test-deploy helm lint bench fuzz chaos picture tools clean release release-check

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/faceid-ingest ./cmd/faceid-ingest

# Beside each other: most tests wait for something, and few of them for a processor. So
# more of them run at a time than there are processors: of packages, and of tests in each.
AT_ONCE ?= -p 4 -parallel 8

# What both parts compile is compiled first, once.
test: tools
	CGO_ENABLED=1 $(GO) build -race ./...
ifeq ($(PACKAGES),./...)
	$(MAKE) --no-print-directory -j2 test-program test-deploy
else
	$(MAKE) --no-print-directory test-program
endif

test-program:
	CGO_ENABLED=1 $(GO) test -race -timeout 30m $(AT_ONCE) $(PACKAGES)

# What has modules of its own. The dashboard's and the rules' first, for they are small.
test-deploy:
	cd deploy/prometheus/lint && $(GO) test ./...
	cd deploy/grafana/draw && $(GO) test ./...
	$(MAKE) --no-print-directory helm

# The chart. What helm reads go test does not see, hence no cache. go vet would go
# through all of Kubernetes.
helm: $(BIN)/helm
	cd deploy/helm/lint && $(GO) test -count=1 -vet=off ./...

# The version is in go.mod there, so that helm and the tests share what they compile.
$(BIN)/helm: deploy/helm/lint/go.mod
	cd deploy/helm/lint && GOBIN=$(CURDIR)/$(BIN) $(GO) install helm.sh/helm/v4/cmd/helm
	@touch $@

# Programs the tests call: a C compiler for the race detector, mandoc for the manual
# page, systemd-analyze for the unit file, database servers and a pooler, and Prometheus for its
# rules. Debian's names; elsewhere install them yourself. The tests run servers of their own: nothing of the
# distribution's is set up or started, for which policy-rc.d and createcluster.conf
# are there while apt runs, if there are no others; nor is it at the next boot.
tools:
	@need=""; \
	command -v cc >/dev/null || need="$$need gcc libc6-dev"; \
	command -v mandoc >/dev/null || need="$$need mandoc"; \
	command -v systemd-analyze >/dev/null || need="$$need systemd"; \
	{ command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || need="$$need postgresql"; \
	{ command -v pgbouncer || ls /usr/sbin/pgbouncer; } >/dev/null 2>&1 || need="$$need pgbouncer"; \
	{ command -v promtool && command -v prometheus; } >/dev/null 2>&1 || need="$$need prometheus"; \
	{ command -v mariadbd || ls /usr/sbin/mariadbd; } >/dev/null 2>&1 || need="$$need mariadb-server"; \
	if [ -n "$$need" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			set -e; policy=/usr/sbin/policy-rc.d; cluster=/etc/postgresql-common/createcluster.conf; \
			if [ -e $$policy ]; then policy=; else printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; fi; \
			if [ -e $$cluster ]; then cluster=; else mkdir -p /etc/postgresql-common; echo 'create_main_cluster = false' >$$cluster; fi; \
			trap 'rm -f $$policy $$cluster' EXIT; \
			apt-get update -qq; \
			DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 apt-get install -y -qq --no-install-recommends $$need; \
			for package in $$need; do \
				unit=$${package%-server}.service; \
				[ ! -e /lib/systemd/system/$$unit ] || systemctl --root=/ --quiet disable $$unit; \
			done; \
		else \
			echo "please install:$$need" >&2; exit 1; \
		fi; \
	fi

lint: $(BIN)/golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these" >&2; exit 1; }
	$(GO) mod tidy -diff
	$(BIN)/golangci-lint run
	cd deploy/helm/lint && $(CURDIR)/$(BIN)/golangci-lint run
	cd deploy/prometheus/lint && $(GO) mod tidy -diff && $(CURDIR)/$(BIN)/golangci-lint run
	cd deploy/grafana/draw && $(GO) mod tidy -diff && $(CURDIR)/$(BIN)/golangci-lint run

$(BIN)/golangci-lint: Makefile
	GOBIN=$(CURDIR)/$(BIN) $(GO) install $(GOLANGCI)
	@touch $@

bench:
	$(GO) test -run '^$$' -bench . -benchmem $(PACKAGES)

# Every fuzz target in turn, for FUZZTIME each.
fuzz:
	@set -e; for package in $$($(GO) list $(PACKAGES)); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

# Nothing is lost and nothing doubled while everything breaks: some minutes with
# one NATS server, and the same with a cluster of three. Flags go into CHAOS; a small
# form is among the tests.
CHAOS ?= --tokens 2000 --workers 3 --kill 2s --seed 1

chaos: tools
	$(GO) run ./cmd/chaos $(CHAOS)
	$(GO) run ./cmd/chaos $(CHAOS) --cluster

# The dashboard of the bad day that a test has, for the README.
picture: tools
	$(GO) test ./cmd/faceid-ingest -count=1 -run TestIncident -picture $(CURDIR)/deploy/grafana/dashboard.png

# What a release consists of: static binaries that anybody can build again to the
# byte, manual page, completions, a bill of materials (CycloneDX) and checksums.
DIST := dist
release:
	rm -rf $(DIST) && mkdir -p $(DIST)
	@set -e; for arch in amd64 arm64; do \
		echo "build linux/$$arch"; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS) -buildid=' -o $(DIST)/faceid-ingest-linux-$$arch ./cmd/faceid-ingest; \
	done
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS) -buildid=' -o $(DIST)/faceid-ingest ./cmd/faceid-ingest
	$(DIST)/faceid-ingest man >$(DIST)/faceid-ingest.1
	@set -e; for shell in bash zsh fish; do $(DIST)/faceid-ingest completion $$shell >$(DIST)/faceid-ingest.$$shell; done
	$(DIST)/faceid-ingest config schema >$(DIST)/faceid-ingest.schema.json
	rm $(DIST)/faceid-ingest
	CGO_ENABLED=0 $(GO) run $(CYCLONEDX) app -json -noserial -licenses=false -main cmd/faceid-ingest -output $(DIST)/faceid-ingest.cdx.json .
	sed -i 's/"timestamp": "[^"]*"/"timestamp": "$(DATE)"/' $(DIST)/faceid-ingest.cdx.json
	cd $(DIST) && sha256sum * >SHA256SUMS && cat SHA256SUMS

# Builds a release of the last commit twice, in different folders, and compares.
release-check:
	@set -e; work=$$(mktemp -d); trap 'rm -rf $$work' EXIT; \
	for n in 1 2; do \
		git clone -q . $$work/$$n/somewhere-$$n; \
		$(MAKE) -s -C $$work/$$n/somewhere-$$n release VERSION=$(VERSION) >/dev/null; \
	done; \
	diff $$work/1/somewhere-1/dist/SHA256SUMS $$work/2/somewhere-2/dist/SHA256SUMS && echo "two builds of $$(git rev-parse --short HEAD) are the same"

clean:
	rm -rf $(BIN) $(DIST)
