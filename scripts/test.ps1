# Everything that CI checks: style, types, tests. Arguments go to pytest: scripts\test.ps1 tests\test_stats.py -k median
. (Join-Path $PSScriptRoot 'setup.ps1')
$Typed = @(Join-Typed $args)
Initialize-Harness
Initialize-TestTools
Set-Location -LiteralPath $Root
& (Join-Path $Venv 'Scripts\ruff.exe') check .
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
& (Join-Path $Venv 'Scripts\ruff.exe') format --check .
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
& (Join-Path $Venv 'Scripts\mypy.exe')
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }
& $VenvPython -m pytest @Typed
exit $LASTEXITCODE
