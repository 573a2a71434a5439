#!/bin/sh
# Writes the bill of materials and the license texts of an environment's packages.
#   sh deploy/docker/write-notices.sh TOOLS ENVIRONMENT FOLDER
# TOOLS is an environment with the packages of notices.txt; both are virtual environments.
set -eu
tools=$1/bin python=$2/bin/python folder=$3
mkdir -p "$folder"
"$tools/cyclonedx-py" environment --output-reproducible --output-format JSON \
    --output-file "$folder/sbom.cdx.json" "$python"
"$tools/pip-licenses" --python="$python" --from=mixed --format=plain-vertical --with-system --with-urls \
    --with-license-files --with-notice-files --with-other-files --no-license-path \
    --output-file="$folder/THIRD-PARTY-NOTICES.txt"
