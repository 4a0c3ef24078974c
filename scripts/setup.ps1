# Dot-sourced by scripts\harness.ps1 and scripts\test.ps1: makes .venv from the lock, once, by the steps of setup.sh in the same order.
# Everything that takes long says so first. For Windows PowerShell 5.1 and PowerShell 7.
#
#   $env:PYTHON      the interpreter to use, if not the first of py -3.13 ... py -3.10, python
#   $env:CMAKE_ARGS  added to llama.cpp's build, e.g. -DGGML_CUDA=ON; a change rebuilds, leaving it out keeps what there is

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$Root = Split-Path -Parent $PSScriptRoot
$Venv = Join-Path $Root '.venv'
$VenvPython = Join-Path $Venv 'Scripts\python.exe'
$Cache = Join-Path $Root '.cache'
$Log = Join-Path $Cache 'setup.log'

$GetPython = 'winget install Python.Python.3.13'
$GetCompiler = 'winget install Microsoft.VisualStudio.2022.BuildTools --override "--passive --wait --add Microsoft.VisualStudio.Workload.VCTools --includeRecommended"'

function Stop-Setup([string]$Sentence) {
    [Console]::Error.WriteLine("harness: $Sentence")
    exit 1
}

function Get-Checksum([string]$Text) {
    $hash = [System.Security.Cryptography.SHA256]::Create()
    $bytes = $hash.ComputeHash([System.Text.Encoding]::UTF8.GetBytes($Text))
    [System.BitConverter]::ToString($bytes, 0, 8).Replace('-', '').ToLowerInvariant()
}

function Read-Text([string]$Path) {
    if (Test-Path -LiteralPath $Path) { [System.IO.File]::ReadAllText($Path) } else { '' }
}

function Write-Text([string]$Path, [string]$Text) {
    [System.IO.File]::WriteAllText($Path, $Text)  # Set-Content of PowerShell 5.1 would add a byte order mark
}

# What the environment was made from: a lock, and this project's own metadata.
function Get-Fingerprint([string]$Lock) {
    $names = 'pyproject.toml', 'scripts\setup.ps1', 'scripts\no-common.cmake', $Lock
    Get-Checksum (($names | ForEach-Object { Read-Text (Join-Path $Root $_) }) -join "`n")
}

# Runs a program quietly; whether it ended well. Its stderr is no error of ours.
function Test-Program([string]$Program, [string[]]$Arguments) {
    $ErrorActionPreference = 'Continue'
    if (-not (Get-Command $Program -ErrorAction SilentlyContinue)) { return $false }
    & $Program @Arguments 2>&1 | Out-Null
    $LASTEXITCODE -eq 0
}

# The command of an interpreter, in words.
function Find-Python {
    $candidates = @(, @('py', '-3.13')) + @(, @('py', '-3.12')) + @(, @('py', '-3.11')) + @(, @('py', '-3.10')) + @(, @('python'))
    if ($env:PYTHON) { $candidates = @(, @($env:PYTHON)) }
    foreach ($words in $candidates) {
        $options = @($words | Select-Object -Skip 1)
        if (Test-Program $words[0] ($options + @('-c', 'import sys; sys.exit(sys.version_info < (3, 10))'))) { return , $words }
    }
    Stop-Setup "no Python >= 3.10 was found; install one: $GetPython - or name it: `$env:PYTHON = 'C:\path\to\python.exe'"
}

# MSVC does not lie on the PATH; its installer says where it is. CMake finds it the same way.
function Assert-Compiler {
    $vswhere = Join-Path ([Environment]::GetFolderPath('ProgramFilesX86')) 'Microsoft Visual Studio\Installer\vswhere.exe'
    $tools = 'Microsoft.VisualStudio.Component.VC.Tools.x86.x64', 'Microsoft.VisualStudio.Component.VC.Tools.ARM64'
    if (Test-Path -LiteralPath $vswhere) {
        if (& $vswhere -latest -products * -requiresAny -requires $tools -property installationPath) { return }
    }
    if ((Get-Command cl -ErrorAction SilentlyContinue) -or (Get-Command clang++ -ErrorAction SilentlyContinue)) { return }
    Stop-Setup "no C++ compiler was found, and llama.cpp is compiled here; install one: $GetCompiler"
}

# Whether the machine has a CMake that llama.cpp takes (3.21) and a Ninja; what it lacks comes from the lock.
function Test-CMake {
    if (-not (Test-Program 'cmake' @('--version'))) { return $false }
    $line = & cmake --version | Select-Object -First 1
    if ($line -match '(\d+)\.(\d+)') { return [int]$Matches[1] -gt 3 -or ([int]$Matches[1] -eq 3 -and [int]$Matches[2] -ge 21) }
    $false
}

function Test-Ninja { Test-Program 'ninja' @('--version') }

# Runs a step with its output in the log; a failure names the log and the likely cause.
function Invoke-Step([string]$Program, [string[]]$Arguments) {
    $ErrorActionPreference = 'Continue'  # a program's stderr is no error of ours; its exit code says what it is
    [System.IO.File]::AppendAllText($Log, "`n== $Program $($Arguments -join ' ')`n")
    & $Program @Arguments 2>&1 | ForEach-Object { [System.IO.File]::AppendAllText($Log, "$_`n") }
    if ($LASTEXITCODE -eq 0) { return }
    $said = @((Read-Text $Log) -split "`n" | Where-Object { $_.Trim() } | Select-Object -Last 200) -join "`n"
    $cause = switch -Regex ($said) {
        'not enough space|No space left on device' { 'the disk is full'; break }
        'CUDA Toolkit not found|Failed to find nvcc|CMAKE_CUDA_COMPILER' { 'the CUDA toolkit (nvcc) was not found; install it or leave out -DGGML_CUDA=ON'; break }
        'Could NOT find Vulkan' { 'the Vulkan SDK was not found: winget install KhronosGroup.VulkanSDK'; break }
        'No CMAKE_CXX_COMPILER|CMAKE_CXX_COMPILER not set|could not find any instance of Visual Studio' { "no C++ compiler was found: $GetCompiler"; break }
        'WinError 206|filename or extension is too long|path too long' { 'a path is longer than 260 characters; put this folder nearer to the root of the drive'; break }
        'Could not fetch|name resolution|NewConnectionError|Failed to fetch' { 'the package index cannot be reached'; break }
        'DO NOT MATCH THE HASHES' { 'a download does not have the hash of the lock'; break }
        'out of heap space|C1060|C1002' { 'memory ran out; try again with $env:CMAKE_BUILD_PARALLEL_LEVEL = 1'; break }
        default { 'its last lines are: ' + ((($said -split "`n") | Select-Object -Last 3) -join ' ') }
    }
    Stop-Setup "set-up failed: $cause. The whole log: $Log"
}

# The blocks of a lock: a line that names a package and the lines with its hashes.
function Select-Block([string]$Lock, [scriptblock]$IsWanted) {
    $take = $false
    foreach ($line in (Read-Text (Join-Path $Root $Lock)) -split "`r?`n") {
        if ($line -match '^[^ #]') { $take = & $IsWanted (($line -split '==')[0]) }
        if ($take) { $line }
    }
}

# Installs what a lock names, except llama-cpp-python, which is compiled on its own, and the tools for that which are there.
function Install-Lock([string]$Lock) {
    $leftOut = @('llama-cpp-python')
    if (Test-CMake) { $leftOut += 'cmake' }
    if (Test-Ninja) { $leftOut += 'ninja' }
    $wheels = Join-Path $Cache "$Lock.wheels"
    Write-Text $wheels ((Select-Block $Lock { param($name) $leftOut -notcontains $name }) -join "`n")
    if (Get-Command uv -ErrorAction SilentlyContinue) {
        Invoke-Step 'uv' @('pip', 'install', '--python', $VenvPython, '--require-hashes', '--no-deps', '-r', $wheels)
    } else {
        Invoke-Step $VenvPython @('-m', 'pip', 'install', '--disable-pip-version-check', '--require-hashes', '--no-deps', '-r', $wheels)
    }
}

# What a native build sees: a wheel built for another CPU must not be reused.
function Get-CpuIdentity { "$env:PROCESSOR_IDENTIFIER $env:PROCESSOR_ARCHITECTURE" }

# Compiles llama-cpp-python, or takes the wheel that the same lock, flags and CPU gave before. pip's own cache of built wheels knows
# nothing of CMAKE_ARGS, so it is never asked.
function Install-Engine([string]$Flags) {
    $pip = '-m', 'pip'
    $block = Join-Path $Cache 'engine.lock'
    Write-Text $block ((Select-Block 'requirements.lock' { param($name) $name -eq 'llama-cpp-python' }) -join "`n")
    $include = Join-Path $Root 'scripts\no-common.cmake'
    $wheels = Join-Path $Cache ('wheels\' + (Get-Checksum ((Read-Text $block) + (Read-Text $include) + $Flags + (Get-CpuIdentity))))
    if (-not (Test-Path -Path (Join-Path $wheels '*.whl'))) {
        Assert-Compiler
        $sdist = Join-Path $Cache 'sdist'
        Invoke-Step $VenvPython ($pip + @('download', '--no-cache-dir', '--no-deps', '--no-build-isolation', '--no-binary', ':all:', '--require-hashes', '-r', $block, '-d', $sdist))
        # CMake takes / for \, in which the quotes of CMAKE_ARGS would see an escape.
        $env:CMAKE_ARGS = "-DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_OPENSSL=OFF -DGGML_RPC=ON '-DCMAKE_PROJECT_llama_cpp_INCLUDE=$($include.Replace('\', '/'))' $Flags"
        $source = Get-ChildItem -Path (Join-Path $sdist 'llama_cpp_python-*.tar.gz') | Select-Object -Last 1
        Invoke-Step $VenvPython ($pip + @('wheel', '--no-cache-dir', '--no-deps', '--no-build-isolation', '--verbose', '-w', $wheels, $source.FullName))
    }
    $wheel = Get-ChildItem -Path (Join-Path $wheels 'llama_cpp_python-*.whl') | Select-Object -Last 1
    Invoke-Step $VenvPython ($pip + @('install', '--disable-pip-version-check', '--no-deps', '--force-reinstall', $wheel.FullName))
}

# Brings .venv up to the lock; quick when its stamp agrees.
function Initialize-Harness {
    $now = Get-Fingerprint 'requirements.lock'
    $stamp = Join-Path $Venv '.stamp'
    $flagsFile = Join-Path $Venv '.engine-flags'
    $builtFlags = Read-Text $flagsFile
    $flags = if (Test-Path Env:CMAKE_ARGS) { $env:CMAKE_ARGS } else { $builtFlags }
    if ((Read-Text $stamp) -eq $now -and $flags -eq $builtFlags) { return }
    New-Item -ItemType Directory -Force -Path $Cache | Out-Null
    Write-Text $Log ''
    [Console]::Error.WriteLine("harness: setting up .venv and compiling llama.cpp, once; takes 2 to 10 minutes, log in $Log")
    if (Test-Path -LiteralPath $stamp) { Remove-Item -LiteralPath $stamp }
    if (-not (Test-Path -LiteralPath $VenvPython)) {
        $python = Find-Python
        if (Test-Path -LiteralPath $Venv) { Remove-Item -LiteralPath $Venv -Recurse -Force }
        Invoke-Step $python[0] (@($python | Select-Object -Skip 1) + @('-m', 'venv', $Venv))
    }
    Install-Lock 'requirements.lock'
    Install-Engine $flags
    Invoke-Step $VenvPython @('-m', 'pip', 'install', '--disable-pip-version-check', '--no-deps', '--no-build-isolation', '-e', $Root)
    Write-Text $flagsFile $flags
    Write-Text $stamp $now
}

# Adds what the tests need.
function Initialize-TestTools {
    $now = Get-Fingerprint 'requirements-test.lock'
    $stamp = Join-Path $Venv '.stamp-test'
    if ((Read-Text $stamp) -eq $now) { return }
    [Console]::Error.WriteLine('harness: installing the test tools')
    Install-Lock 'requirements-test.lock'
    Write-Text $stamp $now
}

# Arguments of a script as they were typed: PowerShell makes an array of 1,2,4.
function Join-Typed([object[]]$Typed) {
    foreach ($one in $Typed) { if ($one -is [array]) { $one -join ',' } else { "$one" } }
}
