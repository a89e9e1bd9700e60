#include "services/gateway/module.h"

int main(int argc, char** argv) { return tutti::ServiceMain(argc, argv, "gateway", tutti::gateway::NewGateway); }
