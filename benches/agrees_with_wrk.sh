#!/usr/bin/env bash
# Whether `lepton bench` and wrk say the same of the same closed loop: both ask one server with as many
# connections, in turn, and their rates are compared round by round. Needs wrk and a release build.
#
#   benches/agrees_with_wrk.sh [ROUNDS [SECONDS [CONNECTIONS]]]
#
# The code is 1 where the median of the ratios is more than 5 % away from 1.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7} seconds=${2:-2} connections=${3:-16}
lepton=${LEPTON:-target/release/lepton}
folder=$(mktemp -d)
"$lepton" serve --listen 127.0.0.1:0 --log error >"$folder/ready" &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
until grep -q listening "$folder/ready"; do sleep 0.1; done
base=$(sed -E 's/listening on ([^,]+),.*/\1/' "$folder/ready")

text='{"text": "The plot is thin and the ending is silly, but the actors have so much fun together that I never once looked at my watch."}'
printf '%s' "$text" >"$folder/text.json"
cat >"$folder/post.lua" <<LUA
wrk.method = "POST"
wrk.body = [[$text]]
wrk.headers["content-type"] = "application/json"
LUA

ours() { # path, more arguments
    local path=$1; shift
    "$lepton" bench "$base$path" "$@" --connections "$connections" --warm-up 0s \
        --duration "${seconds}s" --json "$folder/ours.json" >"$folder/ours.txt"
    sed -nE 's/^ *"answered": ([0-9.]+),?$/\1/p' "$folder/ours.json"
}
theirs() {
    local path=$1; shift
    wrk -t1 -c"$connections" -d"${seconds}s" "$@" "$base$path" >"$folder/theirs.txt"
    if grep -q Non-2xx "$folder/theirs.txt"; then cat "$folder/theirs.txt" >&2; exit 2; fi
    awk '/^Requests\/sec/ { print $2 }' "$folder/theirs.txt"
}
median() { sort -g | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

code=0
compare() { # name, path, lepton's arguments, wrk's arguments
    local name=$1 path=$2 for_ours=$3 for_theirs=$4
    : >"$folder/ours"; : >"$folder/theirs"
    # shellcheck disable=SC2086 # the arguments are words
    for round in $(seq "$rounds"); do
        # Each goes first in every other round.
        if [ $((round % 2)) = 0 ]; then
            ours "$path" $for_ours >>"$folder/ours"
            theirs "$path" $for_theirs >>"$folder/theirs"
        else
            theirs "$path" $for_theirs >>"$folder/theirs"
            ours "$path" $for_ours >>"$folder/ours"
        fi
    done
    # The ratio of the two within a round: what else the machine does in it slows both.
    paste "$folder/ours" "$folder/theirs" | awk '{ print $1 / $2 }' >"$folder/ratios"
    awk -v name="$name" -v a="$(median <"$folder/ours")" -v b="$(median <"$folder/theirs")" \
        -v ratio="$(median <"$folder/ratios")" -v n="$rounds" -v s="$seconds" -v c="$connections" 'BEGIN {
        printf "%-24s lepton bench %8.0f/s   wrk %8.0f/s   median ratio %.3f", name, a, b, ratio
        printf "   (%d connections, %d rounds of %d s)\n", c, n, s
        exit (ratio > 1.05 || ratio < 0.95)
    }' || code=1
}
compare "GET /healthz" /healthz "" ""
compare "POST /v1/text/sentiment" /v1/text/sentiment "--body $folder/text.json" "-s $folder/post.lua"
exit $code
