#!/usr/bin/env bash
# The containers as a stranger would run them: build, start, classify, be scraped and loaded, change models, die, heal,
# drain.
#   make compose-test                  or: tests/e2e/compose.sh [SERVICE…]
# Needs a Docker engine and docker-compose (or docker compose); PROMETHEUS_TAG names an image that is there already.
set -euo pipefail
cd "$(dirname "$0")/../.."

export COMPOSE_PROJECT_NAME=prunepooltest
export PRUNEPOOL_PORT=${PRUNEPOOL_PORT:-18000} PROMETHEUS_PORT=${PROMETHEUS_PORT:-19090} LOCUST_PORT=${LOCUST_PORT:-18089}
export COMPOSE_PROFILES=tools,load
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
services=("${@:-prunepool}")
[[ $# -gt 0 ]] || services=(prunepool prometheus)
url=http://127.0.0.1:$PRUNEPOOL_PORT
prometheus=http://127.0.0.1:$PROMETHEUS_PORT
locust=http://127.0.0.1:$LOCUST_PORT
photo=docs/images/sample.jpg
work=$(mktemp -d)

say() { printf '%6.1f s  %s\n' "$(bc -l <<<"$(date +%s.%N) - $began")" "$*"; }
fail() {
  say "FAILED: $*" >&2
  "${compose[@]}" logs --tail 30 >&2 || true
  exit 1
}
down() {
  kill $(jobs -p) 2>/dev/null || true
  "${compose[@]}" down --volumes --timeout 5 >/dev/null 2>&1 || true
  docker rmi prunepool:before_the_upgrade >/dev/null 2>&1 || true
  rm -rf "$work"
}
# until SECONDS WHAT COMMAND…: tries until it succeeds.
until_true() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "no $what within $limit s"
    sleep 0.2
  done
}
container() { "${compose[@]}" ps -q prunepool; }
inspect() { docker inspect --format "$1" "$(container)"; }
healthy() { [[ $(inspect '{{.State.Health.Status}}') == healthy ]]; }
ready() { curl -fsS --max-time 2 "$url/readyz"; }
classify() { curl -fsS --max-time 20 -F "file=@$photo" "$url/classify?reduction_ratio=${1:-0.5}&top_k=1"; }
query() { curl -fsS --get --data-urlencode "query=$1" "$prometheus/api/v1/query" | python3 -c '
import json, sys
found = json.load(sys.stdin)["data"]["result"]
print(found[0]["value"][1] if found else "")'; }
value_is() { [[ $(query "$1") == "$2" ]]; }
value_above() { [[ -n $(query "$1 > $2") ]]; }

began=$(date +%s.%N)
trap down EXIT
down
mkdir -p "$work"
"${compose[@]}" build prunepool >"$work/build.log" 2>&1 || { tail -30 "$work/build.log" >&2; fail "the build"; }
# The official base, python:3.11-slim-bookworm, has 125 MB; a base of another making says nothing of ours.
# Our layers end with the label.
added=$(docker history --no-trunc --human=false --format '{{.Size}} {{.CreatedBy}}' prunepool |
  awk '{all += $1} /LABEL org.opencontainers/ {exit} END {printf "%d", all / 1e6}')
((added + 125 <= 600)) || fail "the image adds $added MB to its base"
say "built: $added MB on top of the base"
! docker run --rm --entrypoint python prunepool -c 'import torch' 2>/dev/null || fail "there is torch in it"
# The code changes, nothing else does.
touched=service/prunepool/_compose_test.py
echo "# $(date +%s%N)" >"$touched"
again=$(date +%s.%N)
"${compose[@]}" build prunepool >"$work/rebuild.log" 2>&1 || { rm -f "$touched"; fail "the second build"; }
rm -f "$touched"
say "built again after a change of the code: $(bc -l <<<"scale=1; ($(date +%s.%N) - $again) / 1") s"
"${compose[@]}" build prunepool >>"$work/build.log" 2>&1

"${compose[@]}" up -d --no-build "${services[@]}" >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "up"; }
until_true 120 "readiness" ready
say "ready"
until_true 60 "health" healthy
say "healthy, says Docker"

label=$(classify 0.5 | python3 -c 'import json, sys; print(json.load(sys.stdin)["predictions"][0]["label"])')
[[ $label == "golf ball" ]] || fail "the photo is a golf ball, not a $label"
say "classified through the published port: $label"

inside() { docker exec "$(container)" sh -c "$1"; }
[[ $(inside 'id -u') == 10001 ]] || fail "it runs as $(inside 'id -u')"
[[ $(inside 'sed -n "s/^CapEff:\t//p" /proc/self/status') == 0000000000000000 ]] || fail "it has capabilities"
! inside 'touch /opt/x' 2>/dev/null || fail "the root file system can be written to"
! inside 'touch /models/x' 2>/dev/null || fail "the models can be written to"
! inside 'command -v cc || command -v gcc || command -v c++ || command -v clang' || fail "there is a compiler"
docker logs "$(container)" 2>&1 | python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
assert any(f"at {sys.argv[1]} (ready" in line["event"] for line in lines), "the published address"' "$url" ||
  fail "a line of the log is no JSON, or none names $url"
say "every line of its log is JSON, and names the published address"
published=$(docker port "$(container)")
[[ $published == *"-> 127.0.0.1:"* && $published != *0.0.0.0* ]] || fail "published on $published"
say "not root, no capabilities, nothing to write to, no compiler, on loopback alone"

until_true 60 "target" value_is 'up{job="prunepool"}' 1
until_true 60 "image in Prometheus" value_above 'sum(prunepool_images_total)' 0
until_true 60 "recording rule" value_above 'count(model_reduction:prunepool_images:rate5m)' 0
say "Prometheus scrapes it: $(query 'sum(prunepool_images_total)') image(s), engine_up $(query prunepool_engine_up)"

# Locust's own page starts the load, its figures are the proof.
"${compose[@]}" build locust >"$work/locust.log" 2>&1 || { tail -30 "$work/locust.log" >&2; fail "the build of locust"; }
"${compose[@]}" up -d --no-build locust >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "up of locust"; }
until_true 30 "page of Locust" curl -fsS --max-time 2 "$locust/"
curl -fsS -X POST -F user_count=4 -F spawn_rate=4 "$locust/swarm" >/dev/null || fail "Locust did not start"
locust_total() { curl -fsS --max-time 5 "$locust/stats/requests" | python3 -c '
import json, sys
print(next(row for row in json.load(sys.stdin)["stats"] if row["name"] == "Aggregated")[sys.argv[1]])' "$1"; }
locust_sent() { (($(locust_total num_requests) >= 100)); }
until_true 60 "hundredth answer to Locust" locust_sent
[[ $(locust_total num_failures) == 0 ]] || fail "Locust saw $(locust_total num_failures) failures"
say "Locust, read-only and not root either: $(locust_total num_requests) answers, none failed"
"${compose[@]}" rm --stop --force locust >/dev/null 2>&1

# Up to a second model and back, on an older image's tag as well: settings alone, the volume stays.
model() { curl -fsS --max-time 2 "$url/models" | python3 -c 'import json, sys; print(json.load(sys.stdin)["default"])'; }
docker tag prunepool prunepool:before_the_upgrade
second=deit_tiny_imagenette
PRUNEPOOL_MODEL=$second "${compose[@]}" up -d --no-build prunepool >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "up"; }
until_true 120 "readiness with the second model" ready
[[ $(model) == "$second" && -n $(classify 0.5) ]] || fail "$(model) is served, not the second model"
PRUNEPOOL_TAG=before_the_upgrade "${compose[@]}" up -d --no-build prunepool >"$work/up.log" 2>&1 || fail "up"
until_true 120 "readiness after the way back" ready
[[ $(model) != "$second" && $(inspect '{{.Config.Image}}') == prunepool:before_the_upgrade ]] || fail "$(model) is served"
say "a second model was served, and left again"

# What cannot start is said once, and not restarted.
if PRUNEPOOL_MODEL=none "${compose[@]}" up -d --no-build prunepool >"$work/up.log" 2>&1; then fail "up with a wrong model"; fi
"${compose[@]}" logs check 2>&1 | grep -q "no model 'none'" || fail "check does not name the wrong model"
"${compose[@]}" up -d --no-build prunepool >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "up again"; }
until_true 120 "readiness after a wrong model" ready
say "a wrong model: up fails and says so, the service that was there is back"

restarts() { inspect '{{.RestartCount}}'; }
before=$(restarts)
# The server is the child of the container's init, which no signal from within can end.
inside 'kill -9 $(cat /proc/1/task/1/children)'
killed=$(date +%s.%N)
gone() { ! ready; }
until_true 10 "end" gone
until_true 60 "readiness after kill -9" ready
[[ $(restarts) -gt $before ]] || fail "it was not restarted"
classify 0.755 >/dev/null || fail "no answer after the restart"
say "killed with SIGKILL: ready and answering again after $(bc -l <<<"scale=1; ($(date +%s.%N) - $killed) / 1") s"
until_true 30 "target after the restart" value_is 'up{job="prunepool"}' 1

# An engine that is a process of its own is killed under requests: the server stays and says what is missing.
printf 'services:\n  prunepool:\n    environment:\n      PRUNEPOOL_ENGINE: process\n' >"$work/engine.yml"
compose+=(-f docker-compose.yml -f "$work/engine.yml")
"${compose[@]}" up -d --no-build prunepool >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; fail "up"; }
until_true 120 "readiness with an engine process" ready
before=$(restarts)
engine_pid() { docker logs "$(container)" 2>&1 | python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin if line.startswith("{")]
print([line["pid"] for line in lines if line["event"] == "process started" and line["name"] == "engine-0"][-1])'; }
# Eight clients ask all the while, and note what each is told: 000 would be a connection that broke.
client() {
  until [[ -e $work/enough ]]; do
    curl -s --max-time 60 -o /dev/null -w '%{http_code}\n' -F "file=@$photo" "$url/classify?reduction_ratio=0" >>"$work/told.$1" || true
    sleep 0.05
  done
}
told() { cat "$work"/told.* | grep -c "$1" || true; }
told_200() { (($(told 200) >= ${1:-50})); }
for i in $(seq 8); do client "$i" & done
until_true 30 "answers before the engine's end" told_200
engine=$(engine_pid)
inside "kill -9 $engine"
killed=$(date +%s.%N)
until_true 10 "missing engine" gone
curl -fsS --max-time 2 "$url/healthz" >/dev/null || fail "the server went with its engine"
until_true 60 "readiness after the engine's kill -9" ready
healed=$(bc -l <<<"scale=1; ($(date +%s.%N) - $killed) / 1")
until_true 30 "answers after the engine's end" told_200 $(($(told 200) + 50))
touch "$work/enough"
wait $(jobs -p)
[[ $(restarts) == "$before" && $(engine_pid) != "$engine" ]] || fail "the container was restarted, not the engine alone"
(($(told '') == $(told 200) + $(told 503))) || fail "under the kill: $(cat "$work"/told.* | sort | uniq -c | tr -s ' \n' ' ')"
say "engine process killed with SIGKILL under requests: back after $healed s, the server stayed; $(told 200) answered, $(told 503) told 503"

# Many at once, the signal among them: whoever was let in is answered, the others are told.
for i in $(seq 48); do
  (curl -s --max-time 60 -o /dev/null -w '%{http_code}\n' -F "file=@$photo" "$url/classify?reduction_ratio=0" || true) >"$work/answer.$i" &
done
some() { grep -l 200 "$work"/answer.*; }
until_true 30 "first answer" some
stopping=$(date +%s.%N)
id=$(container)
"${compose[@]}" stop prunepool >/dev/null 2>&1
stopped=$(bc -l <<<"scale=1; ($(date +%s.%N) - $stopping) / 1")
wait $(jobs -p) || true
code=$(docker inspect --format '{{.State.ExitCode}}' "$id")
[[ $code == 0 ]] || fail "it ended with $code after SIGTERM"
cat "$work"/answer.* | sort | uniq -c | sort -rn >"$work/answers"
! grep -vE ' (200|503|000)$' "$work/answers" || fail "answers that there should not be"
# Accepted requests that lost their answer would have broken the connection after it was made; curl says 000 for
# those and for the ones that came too late to be let in at all. The server's own count tells them apart.
docker logs "$id" 2>&1 | grep -q "left unanswered" && fail "accepted requests were left unanswered"
say "SIGTERM under load: drained in $stopped s, exit 0; answers: $(tr -s ' \n' ' ' <"$work/answers")"
say "all as it should be"
