#!/bin/bash
# vitpipe on the nodes of a Slurm job: one Ray over all of them, the command on the first.
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=96 --time=24:00:00 infra/deploy/slurm.sh run my.yaml
#   sbatch --array=0-9 --gpus-per-node=1 infra/deploy/slurm.sh run my.yaml name=trial-%a vars.seed=%a
# `vitpipe submit my.yaml --slurm` writes this with the job's options and the YAML inside. What it reads:
#   VITPIPE_PYTHON       Python of the environment on a disk that all nodes see (python)
#   VITPIPE_APPTAINER    an image to run in, by Apptainer; VITPIPE_ENROOT: one by enroot and pyxis
#   VITPIPE_MOUNTS       folders that the image has to see, with commas between; scratch and this folder it sees
#SBATCH --job-name=vitpipe
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=TERM@300
#SBATCH --open-mode=append
# ---- the job
set -u
say() { printf 'vitpipe on Slurm: %s\n' "$*" >&2; }

# Scratch is local to each node; nothing that must last is kept there.
scratch=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}
if ! mkdir -p "$scratch" || ! [ -w "$scratch" ]; then
  say "$(hostname) has no scratch folder that one can write to: $scratch. Set SLURM_TMPDIR or TMPDIR."
  exit 7
fi
# ---- what to run
[ "$#" -gt 0 ] || { say "nothing to run. Give a verb, such as: run my.yaml"; exit 2; }
set -- "${@//%a/${SLURM_ARRAY_TASK_ID:-0}}"

# One secret for this job's Ray, the user's own if there is one, so that `vitpipe submit` and the dashboard take it too.
export RAY_AUTH_MODE=token
token=${RAY_AUTH_TOKEN:-$(cat "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" 2> /dev/null)}
export RAY_AUTH_TOKEN=${token:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}

# A port by the job's number, so that jobs that share a machine do not meet; a taken one is passed over.
port=$((20000 + SLURM_JOB_ID % 10000))
while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do port=$((port + 1)); done
export VITPIPE_RAY_PORT=$port TMPDIR=$scratch

# srun's own code is the highest of all nodes, those among them that are ended after the first node has: it says its own here.
export VITPIPE_CODE=$scratch/vitpipe-code-$SLURM_JOB_ID
rm -f "$VITPIPE_CODE"

nodes=${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}}
export VITPIPE_NODES=$nodes
# A node that cannot take part says so and is missing; the run waits for it as for any machine, and ends by itself.
step=(srun --ntasks="$nodes" --ntasks-per-node=1 --cpu-bind=none --mem=0 --kill-on-bad-exit=0 --wait=0)
[ -n "${SLURM_CPUS_PER_TASK:-}" ] && step+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
mounts="$PWD,$scratch${VITPIPE_MOUNTS:+,$VITPIPE_MOUNTS}"
python=${VITPIPE_PYTHON:-python}
if [ -n "${VITPIPE_APPTAINER:-}" ]; then
  step+=(apptainer exec --bind "$mounts" --pwd "$PWD")
  [ -n "${SLURM_GPUS_ON_NODE:-}" ] && step+=(--nv)
  step+=("$VITPIPE_APPTAINER")
  python=python
elif [ -n "${VITPIPE_ENROOT:-}" ]; then
  IFS=, read -r -a folders <<< "$mounts"
  step+=(--container-image="$VITPIPE_ENROOT" --container-workdir="$PWD"
    --container-mounts="$(printf '%s\n' "${folders[@]}" | sed 's/.*/&:&/' | paste -sd,)")
  python=python
fi

say "job $SLURM_JOB_ID on $nodes node(s) ${SLURM_JOB_NODELIST:-}, scratch $scratch, start ${SLURM_RESTART_COUNT:-0}"
"${step[@]}" "$python" -m vitpipe.infra.ray.slurm_node "$@" < /dev/null &
srun=$! over=0
while kill -0 "$srun" 2> /dev/null; do  # the others leave once the first node is done; the job waits 30 s for them
  [ -s "$VITPIPE_CODE" ] && over=$((over + 1))
  [ "$over" -eq 30 ] && kill "$srun"
  sleep 1
done
wait "$srun"
code=$?
if [ -s "$VITPIPE_CODE" ]; then
  code=$(cat "$VITPIPE_CODE")
else
  say "srun ended with $code, and the first node has not said how: see above, and whether it found $python"
fi
rm -f "$VITPIPE_CODE"

# 75: a signal ended it and it can be resumed. When Slurm or the user took the job away, requeueing it is theirs.
if [ "$code" -eq 75 ]; then
  code=6
  if [ "$(squeue --noheader --job "$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    say "asked to end, and ended resumable: back into the queue, the same run goes on"
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
    say "the queue refused it: submit it again, all state is in the store"
  fi
fi
exit "$code"
