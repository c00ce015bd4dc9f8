#!/bin/sh
# Makes models/nano from nothing: some three hours on two cores. Interrupted, it goes on where it was.
#
#   make.sh REFERENCE PRODUCT
#
# REFERENCE: the python of the reference environment (PyTorch, qwen-tts; CONTRIBUTING.md) with librosa and soxr, and
# libespeak-ng on the machine. PRODUCT: a python with this package and pocketsphinx (pip install '.[dev,plot]').
set -eu
reference=$1 product=$2
cd "$(dirname "$0")"
: "${NANO_WORK:=$PWD/../../../build/nano}"
mkdir -p "$NANO_WORK"
NANO_WORK=$(cd "$NANO_WORK" && pwd)
export NANO_WORK OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Two processes of one thread each are faster than one of two wherever anything else runs on the machine.
export PYTHONPATH=$PWD/../../..

[ -e "$NANO_WORK/items.json" ] || "$reference" corpus.py
[ -e "$NANO_WORK/latents.npy" ] || "$reference" codes.py
[ -e "$NANO_WORK/config.json" ] || "$reference" checkpoint.py
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
"$reference" decoder.py &
decoder=$!
"$reference" encoder.py
wait $decoder
WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29511
export WORLD_SIZE MASTER_ADDR MASTER_PORT
RANK=1 "$reference" talker.py &
second=$!
RANK=0 "$reference" talker.py
wait $second
unset WORLD_SIZE
"$reference" assemble.py
"$reference" publish.py
"$product" -m qwen3tts_gguf convert "$NANO_WORK/checkpoint" --type q8_0 --name nano --out ..
"$product" curves.py
"$product" evaluate.py ../nano-Q8_0.gguf --json "$NANO_WORK/figures.json"
