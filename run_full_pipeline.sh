#!/usr/bin/env bash
# Runs the pipeline: corpus and queries, small-sample test, training, evaluation.
#
#   ./run_full_pipeline.sh --quick        all of it on the bundled sample: no GPU, no LLM, no hub; minutes
#   ./run_full_pipeline.sh                the full run; an LLM server must be up (see AWS_RUNBOOK.md)
#   ./run_full_pipeline.sh --from train   the stages from training on
#   ./run_full_pipeline.sh --to setup     only create .venv and install requirements.txt
#
# --quick       settings of the quick run, [in brackets] below
# --from STAGE  first stage to run; the setup is done first whenever it is missing
# --to STAGE    last stage to run
# --help        this text
#
# Stages: setup corpus queries sample train evaluate. Whatever is stopped resumes where it stopped when the same
# command is run again. Everything shown is also in logs/<start time>-<process>.log, which logs/latest.log leads to.
# Exit status: 0, or that of the stage that failed; 2 for wrong input, told before the corpus stage where it can be
# known by then; 75 where no LLM server answers.
#
# Environment variables and their defaults:
#   SOURCE          lavita/MedQuAD [sample]; hub data set, file, XML folder or sample
#   BASE_MODEL      sentence-transformers/all-MiniLM-L12-v2 [all-MiniLM-L6-v2, packaged]; model to adapt
#   JUDGE           llm [answer-key]; who grades
#   LLM_ENDPOINT    http://localhost:8000/v1; the judge's server, several separated by spaces
#   LLM_MODEL       Qwen/Qwen2.5-7B-Instruct; model the endpoints serve (a key, if they want one, is OPENAI_API_KEY)
#   NUM_QUERIES     1000 [200, all there are]; training questions per iteration, new ones until all were asked
#   NUM_CANDIDATES  k of iterative_miner.py:retrieve_candidates(), 50 [20]; chunks judged per training question
#   ITERATIONS      2 [1]; rounds of mining and fine-tuning
#   GRADED          bundled; questions with graded answers for the evaluation and for measuring an LLM judge; a file,
#                   nanobeir (evaluation only), or empty for none
#   MIN_KAPPA       none; the run stops if the LLM judge's weighted kappa with GRADED (-1 to 1) is below this, or if
#                   more than 2% of GRADED stay unjudged; refused with --from train, which skips the stage sample
#   DATA_DIR        data [data/quick]; prepared data, judgments, embeddings
#   OUTPUT_DIR      models/medical-specialized [models/quick]; iteration_0, iteration_1, ..., final
#   DEVICE          auto; where the embedding model runs: auto, cpu, cuda or cuda:N
#   SEED            42; of splits, samples and training order
#   CORPUS_FLAGS    none [--val-fraction 0.2 --test-fraction 0.3]; further flags of prepare_corpus.py
#   JUDGE_FLAGS     none; further flags of both scripts that judge, such as --prompt, --positives, --concurrency
#   SAMPLE_FLAGS    none; further flags of test_small_sample.py
#   MINER_FLAGS     none; further flags of iterative_miner.py
#   EVALUATE_FLAGS  none; further flags of evaluate.py, such as --require-target
#   PYTHON          .venv/bin/python; another interpreter that has the requirements, then .venv is left alone
# Flags are split at spaces and, coming last, win over the other variables (but an --llm-endpoint is one more server, and
# stages that do not agree on base model, judge, --data-dir or --output-dir are refused). Paths are relative to this
# script's folder.

set -euo pipefail
script=$(readlink -f "${BASH_SOURCE[0]}") # where it really lies, also behind links; absolute: no CDPATH is searched
cd "$(dirname "$script")"

STAGES=(setup corpus queries sample train evaluate)

main() {
    read_arguments "$@"
    choose_settings
    start_log
    timed setup set_up
    timed preflight preflight
    local name
    for name in "${STAGES[@]:1}"; do
        if selected "$name"; then
            command_of "$name"
            timed "$name" run "$PYTHON" "${command[@]}"
        fi
    done
}

fail() {
    echo "error: $*" >&2
    exit 2
}

# ---------------------------------------------------------------- settings

read_arguments() {
    quick=false first=0 last=$((${#STAGES[@]} - 1))
    while (($#)); do
        case $1 in
        --quick) quick=true ;;
        --from)
            position "${2-}"
            first=$found
            shift
            ;;
        --to)
            position "${2-}"
            last=$found
            shift
            ;;
        --help | -h)
            sed -n '2,/^$/s/^# \{0,1\}//p' "$script"
            exit
            ;;
        *) fail "unknown argument $1; see ./run_full_pipeline.sh --help" ;;
        esac
        shift
    done
    ((first <= last)) || fail "--from ${STAGES[first]} comes after --to ${STAGES[last]}; stages in order: ${STAGES[*]}"
}

position() {
    for found in "${!STAGES[@]}"; do
        [[ ${STAGES[found]} != "$1" ]] || return 0
    done
    fail "unknown stage '$1'; stages: ${STAGES[*]}"
}

selected() {
    position "$1"
    ((first <= found && found <= last))
}

choose_settings() {
    if $quick; then
        : "${SOURCE:=sample}" "${BASE_MODEL:=all-MiniLM-L6-v2}" "${JUDGE:=answer-key}"
        : "${NUM_QUERIES:=200}" "${NUM_CANDIDATES:=20}" "${ITERATIONS:=1}"
        : "${DATA_DIR:=data/quick}" "${OUTPUT_DIR:=models/quick}"
        : "${CORPUS_FLAGS=--val-fraction 0.2 --test-fraction 0.3}"
        export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
    fi
    : "${SOURCE:=lavita/MedQuAD}" "${BASE_MODEL:=sentence-transformers/all-MiniLM-L12-v2}" "${JUDGE:=llm}"
    : "${LLM_ENDPOINT:=http://localhost:8000/v1}" "${LLM_MODEL:=Qwen/Qwen2.5-7B-Instruct}"
    : "${NUM_QUERIES:=1000}" "${NUM_CANDIDATES:=}" "${ITERATIONS:=2}"
    : "${DATA_DIR:=data}" "${OUTPUT_DIR:=models/medical-specialized}"
    : "${GRADED=bundled}" "${MIN_KAPPA:=}" "${DEVICE:=auto}" "${SEED:=42}"
    : "${CORPUS_FLAGS:=}" "${JUDGE_FLAGS:=}" "${SAMPLE_FLAGS:=}" "${MINER_FLAGS:=}" "${EVALUATE_FLAGS:=}"
    [[ -z $MIN_KAPPA || ($JUDGE == llm && -n $GRADED) ]] || fail "MIN_KAPPA needs JUDGE=llm and a GRADED set"
    if [[ -n $MIN_KAPPA ]] && selected train && ! selected sample; then
        fail "MIN_KAPPA is checked in stage sample, which --from ${STAGES[first]} skips; leave out MIN_KAPPA or --from"
    fi
    judge_flags=(--judge "$JUDGE")
    sample_graded=()
    if [[ $JUDGE == llm ]]; then
        local endpoints endpoint
        words_of endpoints "$LLM_ENDPOINT"
        for endpoint in ${endpoints[@]+"${endpoints[@]}"}; do
            judge_flags+=(--llm-endpoint "$endpoint")
        done
        judge_flags+=(--llm-model "$LLM_MODEL")
        # nanobeir has no grades to measure a judge against: test_small_sample.py says so where that is asked for
        [[ -z $GRADED || ($GRADED == nanobeir && -z $MIN_KAPPA) ]] || sample_graded+=(--graded "$GRADED")
        [[ -z $MIN_KAPPA ]] || sample_graded+=(--min-kappa "$MIN_KAPPA")
    fi
}

# Sets `command` to a stage's script and arguments.
command_of() {
    local flags
    case $1 in
    corpus)
        command=(prepare_corpus.py --source "$SOURCE" --seed "$SEED" --data-dir "$DATA_DIR")
        flags=$CORPUS_FLAGS
        ;;
    queries)
        command=(prepare_queries.py --data-dir "$DATA_DIR")
        flags=""
        ;;
    sample)
        command=(test_small_sample.py --num-queries 30 --num-candidates 10
            --full-run "${NUM_QUERIES}x${NUM_CANDIDATES}x$ITERATIONS" "${judge_flags[@]}"
            ${sample_graded[@]+"${sample_graded[@]}"} --base-model "$BASE_MODEL" --data-dir "$DATA_DIR"
            --seed "$SEED" --device "$DEVICE")
        flags="$JUDGE_FLAGS $SAMPLE_FLAGS"
        ;;
    train)
        command=(iterative_miner.py --iterations "$ITERATIONS" --num-queries "$NUM_QUERIES"
            ${NUM_CANDIDATES:+--num-candidates "$NUM_CANDIDATES"} "${judge_flags[@]}" --base-model "$BASE_MODEL"
            --data-dir "$DATA_DIR" --output-dir "$OUTPUT_DIR" --seed "$SEED" --device "$DEVICE")
        flags="$JUDGE_FLAGS $MINER_FLAGS"
        ;;
    evaluate)
        command=(evaluate.py --baseline-model "$BASE_MODEL" --specialized-model "$OUTPUT_DIR/final" --k 5
            --data-dir "$DATA_DIR" --device "$DEVICE")
        [[ -z $GRADED ]] || command+=(--graded "$GRADED")
        flags=$EVALUATE_FLAGS
        ;;
    esac
    local further
    words_of further "$flags"
    command+=(${further[@]+"${further[@]}"})
}

# Splits a text at spaces and line ends into the array named; no wildcards.
words_of() {
    read -r -d '' -a "$1" <<<"$2" || true # it ends with the text, not with a NUL
}

# ---------------------------------------------------------------- running

child=
stopped_by=
stage=
times=()

# Sends what is shown to a log too; the log's writer outlives Ctrl-C, so that the last lines are in it.
start_log() {
    mkdir -p logs 2>/dev/null && [[ -w logs ]] || fail "cannot write to $PWD/logs; check the permissions and the disk"
    log=logs/$(date +%Y%m%d-%H%M%S)-$$.log
    local width=0
    [[ ! -t 2 ]] || width=$(stty size <&2 | cut -d ' ' -f 2)
    ((${width:-0} == 0)) || export TQDM_NCOLS="$width" # the bars' output is a pipe from here on, which has no width
    export TQDM_MININTERVAL="${TQDM_MININTERVAL:-1}" PYTHONUNBUFFERED=1
    ln -sfn "${log##*/}" logs/latest.log 2>/dev/null || true # a file system without links
    exec > >(trap '' INT TERM HUP && exec tee "$log") 2>&1
    tee_pid=$!
    trap finish EXIT
    trap 'pass_on INT' INT
    trap 'pass_on TERM' TERM
    trap 'pass_on HUP' HUP
}

pass_on() {
    stopped_by=$1
    if [[ $child == starting ]]; then
        return # `attend` passes it on
    elif [[ -n $child ]]; then
        stop_child
    else
        exit $((128 + $(kill -l "$1")))
    fi
}

# By SIGTERM, whatever came: a SIGHUP is lost on a child that bash has only begun to start. One that is halted (SIGSTOP,
# or SIGTTIN for asking at /dev/tty) has to go on to receive it.
stop_child() {
    kill -s TERM -- "-$child" 2>/dev/null || true
    kill -s CONT -- "-$child" 2>/dev/null || true
}

# Runs a command in a process group of its own, so that a signal to this script ends it, and all that it started, once.
attend() {
    local status=0
    child=starting
    set -m
    "$@" &
    child=$!
    set +m
    [[ -z $stopped_by ]] || stop_child
    wait "$child" || status=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the command
        status=0
        wait "$child" || status=$?
    done
    stop_child # what the command left running would keep the log open
    child=
    [[ -z $stopped_by ]] || status=$((128 + $(kill -l "$stopped_by")))
    return "$status"
}

run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    attend "$@" </dev/null # in the background, what asked the terminal would wait for good
}

# Runs a stage; where it fails, `finish` is next.
timed() {
    stage=$1 started=$SECONDS
    shift
    "$@"
    note_time
    stage=
}

note_time() {
    times+=("$(printf '%-10s %8s' "$stage" $((SECONDS - started)))")
}

finish() {
    local status=$?
    [[ -z $stage ]] || note_time
    if ((${#times[@]})); then
        printf '\n%-10s %8s\n' STAGE SECONDS
        printf '%s\n' "${times[@]}"
        printf '%-10s %8s\n' total "$SECONDS"
    fi
    ((status == 0)) || printf '\nStopped with status %s%s\n' "$status" "${stage:+ in stage $stage}"
    echo "Log: $log"
    exec >&- 2>&-
    wait "$tee_pid" || true
    exit "$status"
}

# ---------------------------------------------------------------- setup and preflight

set_up() {
    if [[ -n ${PYTHON-} ]]; then
        return
    fi
    PYTHON=.venv/bin/python
    # An environment without pip, as other tools make, gets it; one that cannot is made anew.
    if ! has_pip; then
        rm -f .venv/requirements.installed
        "$PYTHON" -m ensurepip >/dev/null 2>&1 || true
    fi
    if ! has_pip; then
        local newest
        newest=$(newest_python)
        run "$newest" -m venv --clear .venv
    fi
    if ! cmp -s requirements.txt .venv/requirements.installed; then
        run "$PYTHON" -m pip install -r requirements.txt
        run cp requirements.txt .venv/requirements.installed
    fi
}

has_pip() {
    "$PYTHON" -m pip --version >/dev/null 2>&1
}

newest_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3.10 python3; do
        if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.10 or newer with venv here ($(python3 --version 2>&1 || true)); install python3 and python3-venv"
}

# Finds out now what would otherwise stop the run hours later, by hardneg/preflight.py.
preflight() {
    local commands=() name
    for name in "${STAGES[@]:1}"; do
        if selected "$name"; then
            command_of "$name"
            commands+=("${command[@]}" ";")
        fi
    done
    ((${#commands[@]})) || return 0
    local gib_needed=5
    if $quick; then gib_needed=1; fi
    attend "$PYTHON" -m hardneg.preflight "$gib_needed" "${commands[@]}" </dev/null
}

main "$@"
