#include "atoll/net/lookup.h"

#include <system_error>
#include <thread>
#include <utility>

namespace reef {

void look_up_detached(std::string host, std::uint16_t port, LookUpDone done) {
  try {
    std::thread([host = std::move(host), port, done]() {
      done(resolve(host, port, false));
    }).detach();
  } catch (const std::system_error& failure) {  // no thread to be had
    done(Error{Code::io, failure.code().value(), "cannot start a thread to resolve a host name"});
  }
}

}  // namespace reef
