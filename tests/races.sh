#!/usr/bin/env bash
# races.sh TIMES [pytest's words]: runs the tests that start, kill, cancel or wait for processes, or press keys in a browser, so
# many times beside two busy processes, counts the runs that fail, and fails if one does. PYTEST names the program.
set -u
times=$1 failed=0
shift
folders=(building commands dataset export extension farm versions trainer/generation trainer/runs trainer/training
  truth/test_truth_gallery.py trainer/evaluation/test_report_browser.py test_gallery.py)
wanted="kill or interrupt or cancel or second_build or writers or at_once or stopped or stuck or dead or held or beside or committers"
wanted+=" or share_a_folder or several_processes or many_processes or two_processes or first_process"
wanted+=" or gallery or report_browser or diff_page"
for _ in 1 2; do
  while :; do :; done &
  busy+=($!)
done
trap 'kill "${busy[@]}"' EXIT
for run in $(seq "$times"); do
  echo "run $run of $times"
  "${PYTEST:-pytest}" "${folders[@]/#/tests/}" -k "$wanted" -p no:cacheprovider "$@" || failed=$((failed + 1))
done
echo "$times runs, $failed failed"
[ "$failed" = 0 ]
