# harness, set up on first use. Arguments are harness's own: scripts\harness.ps1 pp-tg --help
# Where scripts may not be run: powershell -ExecutionPolicy Bypass -File scripts\harness.ps1 pp-tg
. (Join-Path $PSScriptRoot 'setup.ps1')
$Typed = @(Join-Typed $args)
Initialize-Harness
Remove-Item Env:CMAKE_ARGS -ErrorAction SilentlyContinue
& (Join-Path $Venv 'Scripts\harness.exe') @Typed
exit $LASTEXITCODE
