#!/bin/sh
# Generates Python from the .proto files.
#   deploy/make_proto.sh PYTHON FOLDER    (PYTHON needs grpcio-tools)
set -eu
python=$1
folder=$2
root=serving/protobuf
files=$(cd "$root/proto" && find . -name '*.proto' | sed 's|^\./||' | sort)

rm -rf "$folder"
mkdir -p "$folder"
# shellcheck disable=SC2086
"$python" -m grpc_tools.protoc -I "$root/proto" --python_out="$folder" --pyi_out="$folder" \
    --grpc_python_out="$folder" $files
# The compiler uses the .proto package as Python package; ours is nested deeper.
find "$folder" -name '*.py' -o -name '*.pyi' | while read -r one; do
    sed 's|^from candelabra\.|from serving.protobuf.generated.candelabra.|' "$one" > "$one.new"
    mv "$one.new" "$one"
done
