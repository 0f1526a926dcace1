#!/usr/bin/env bash
# Measures the package on one GPU in at most 9 minutes: correctness, speed, the main job, evidence with larger models.
#
#     benchmarks/gpu/run.sh [--rehearse] [OUTPUT_DIR]
#
# Each part writes OUTPUT_DIR/PART.json after every check, so that nothing is lost when time runs out. If a part fails,
# the next one still runs, and a second run repeats what is missing or failed. --rehearse uses tiny sizes, on CPU if
# there is no GPU. If there is a folder wheels/ next to benchmarks/ (python benchmarks/gpu/make_bundle.py), its wheels
# are installed into the work folder (WORK, default /tmp/vidlankd_gpu) and used; nothing else is downloaded or changed.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rehearse=() && slow=1
[ "${1:-}" = --rehearse ] && rehearse=(--rehearse) && slow=6 && shift  # a rehearsal's CPUs are slow
output=${1:-gpu_results}
work=${WORK:-/tmp/vidlankd_gpu}
python=${PYTHON:-python3}
limit=${LIMIT:-$((540 * slow))}  # seconds for everything
mkdir -p "$output" "$work"
output=$(cd "$output" && pwd)

if [ -d "$here/../../wheels" ]; then
    if [ ! -d "$work/site" ]; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site.part" "$here"/../../wheels/*.whl &&
            mv "$work/site.part" "$work/site" || exit 1
    fi
    export PYTHONPATH=$work/site
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 HF_HOME=$work/cache
cd "$work" || exit 1

status=0
part() { # part NAME SECONDS SCRIPT [OPTIONS]: runs a part for at most SECONDS of what is left
    local name=$1 most=$(($2 * slow)) left=$((limit - SECONDS))
    [ "$left" -lt "$most" ] && most=$left
    if [ "$most" -lt 15 ]; then
        echo "== $name: no time left" && status=1 && return
    fi
    echo "== $name: at most $most s, after $SECONDS s"
    timeout --kill-after=5 "$most" "$python" "$here/$3" --output_dir "$output" --seconds $((most - 10)) \
        ${rehearse[@]+"${rehearse[@]}"} "${@:4}" 2>&1 | tee -a "$output/log.txt" | grep -v Warning
    [ "${PIPESTATUS[0]}" = 0 ] || { echo "== $name: not complete" && status=1; }
}

CUBLAS_WORKSPACE_CONFIG=:4096:8 part correctness 170 correctness.py
part speed 160 speed.py
part main_job 250 jobs.py --part main_job --work_dir "$work"
part evidence 200 jobs.py --part evidence --work_dir "$work"
echo "== after $SECONDS s: $(ls "$output")"
exit $status
