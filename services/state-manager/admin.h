// What an operator does to a store from a shell, beside a running suite or without one.
#pragma once

#include <string>
#include <vector>

namespace tutti::state_manager {

// The commands backup, restore and migrate; `args` come after the command's name and may hold any flag of the
// configuration. Prints what it did; the exit code: 0, 1 a failure, 2 wrong usage.
int AdminMain(const std::string& command, const std::vector<std::string>& args);
bool IsAdminCommand(const std::string& command);
std::string AdminHelp();

}  // namespace tutti::state_manager
