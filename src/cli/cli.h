// The subcommands. Each registers itself with the command line, does its work when it was chosen,
// and then stores the program's exit code: 0, or 1 after it has said on standard error what failed;
// that of `braid health` tells how well the daemon is.
#pragma once

namespace CLI {
class App;
}

namespace braid {

void AddInitCommand(CLI::App& app, int& exit_code);
void AddRunCommand(CLI::App& app, int& exit_code);
void AddCheckCommand(CLI::App& app, int& exit_code);
void AddKeygenCommand(CLI::App& app, int& exit_code);
void AddPubkeyCommand(CLI::App& app, int& exit_code);
void AddStatusCommand(CLI::App& app, int& exit_code);
void AddHealthCommand(CLI::App& app, int& exit_code);
void AddMetricsCommand(CLI::App& app, int& exit_code);
void AddTopCommand(CLI::App& app, int& exit_code);
void AddDoctorCommand(CLI::App& app, int& exit_code);
void AddProbeCommand(CLI::App& app, int& exit_code);
void AddPathCommand(CLI::App& app, int& exit_code);
void AddModeCommand(CLI::App& app, int& exit_code);
void AddThrottleCommand(CLI::App& app, int& exit_code);
void AddBenchCommand(CLI::App& app, int& exit_code);
void AddStartCommand(CLI::App& app, int& exit_code);
void AddStopCommand(CLI::App& app, int& exit_code);
void AddReloadCommand(CLI::App& app, int& exit_code);
void AddTuneCommand(CLI::App& app, int& exit_code);
void AddCleanupCommand(CLI::App& app, int& exit_code);
void AddKillSwitchCommand(CLI::App& app, int& exit_code);

}  // namespace braid
