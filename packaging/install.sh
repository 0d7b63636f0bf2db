#!/bin/sh
@KEY@
