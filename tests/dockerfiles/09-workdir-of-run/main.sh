#!/bin/sh
pwd; ls; echo "$@"
