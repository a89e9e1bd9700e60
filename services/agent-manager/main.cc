#include "services/agent-manager/module.h"

int main(int argc, char** argv) {
  return tutti::ServiceMain(argc, argv, "agent-manager", tutti::agent_manager::NewAgentManager);
}
