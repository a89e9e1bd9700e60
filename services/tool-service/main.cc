#include "services/tool-service/module.h"

int main(int argc, char** argv) {
  return tutti::ServiceMain(argc, argv, "tool-service", tutti::tool_service::NewToolService);
}
