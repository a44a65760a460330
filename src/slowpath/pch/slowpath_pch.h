// What the slow path includes often and compiles slowly.
#ifndef BRAID_SLOWPATH_PCH_H
#define BRAID_SLOWPATH_PCH_H

#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>
#endif
