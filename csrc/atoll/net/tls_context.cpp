#include "atoll/net/tls_context.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <utility>

#include "atoll/net/socket_stream.h"
#include "atoll/net/tls_stream.h"

namespace reef {

namespace {

template <auto Free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    Free(object);
  }
};
void free_bio(BIO* bio) { BIO_free(bio); }
using Bio = std::unique_ptr<BIO, Freed<free_bio>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;

// A certificate chain of a peer, as it arrives. More is refused before it is kept.
constexpr long kMaxChainBytes = 64 << 10;
// All three are good; of those that encrypt with AES the one with the shorter key is the faster.
constexpr const char* kCiphers =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr int kMaxChainDepth = 8;

Error refuse(const std::string& what) {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return Error{Code::invalid, 0,
               "TLS: " + what + (reason == nullptr ? "" : std::string(" (") + reason + ")")};
}

Bio text_bio(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// Never asks a terminal: an encrypted key is refused.
int no_password(char*, int, int, void*) { return 0; }

// Whether reading stopped because there is no further certificate, and not because one is broken.
bool at_the_end() {
  const unsigned long error = ERR_peek_last_error();
  const bool end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (end) {
    ERR_clear_error();
  }
  return end;
}

Status use_certificate(SSL_CTX* context, const std::string& pem) {
  const Bio bio = text_bio(pem);
  const Certificate own(PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr));
  if (own == nullptr || SSL_CTX_use_certificate(context, own.get()) != 1) {
    return refuse("the certificate cannot be used; it must be PEM");
  }
  while (true) {
    Certificate next(PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr));
    if (next == nullptr) {
      break;
    }
    if (SSL_CTX_add0_chain_cert(context, next.get()) != 1) {
      return refuse("a certificate of the chain cannot be used");
    }
    (void)next.release();
  }
  return at_the_end() ? Status(Unit{})
                      : Status(refuse("a certificate of the chain cannot be read"));
}

Status use_key(SSL_CTX* context, const std::string& pem) {
  const Bio bio = text_bio(pem);
  const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  if (key == nullptr) {
    return refuse("the private key cannot be read; it must be PEM and not encrypted");
  }
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return refuse("the private key does not belong to the certificate");
  }
  return Unit{};
}

Status use_authorities(SSL_CTX* context, const std::string& pem) {
  const Bio bio = text_bio(pem);
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  int found = 0;
  while (true) {
    const Certificate one(PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr));
    if (one == nullptr) {
      break;
    }
    if (X509_STORE_add_cert(store, one.get()) != 1) {
      return refuse("an authority's certificate cannot be used");
    }
    ++found;
  }
  if (!at_the_end() || found == 0) {
    return refuse("the authorities' certificates cannot be read; they must be PEM");
  }
  return Unit{};
}

}  // namespace

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Result<std::unique_ptr<TlsContext>> TlsContext::create(const TlsOptions& options) {
  if (options.certificate.empty() || options.key.empty() || options.authorities.empty()) {
    return Error{Code::invalid, 0,
                 "TLS needs all of certificate, private key and authorities, or none of them"};
  }
  constexpr std::size_t kMostText = 4u << 20;
  if (options.certificate.size() > kMostText || options.key.size() > kMostText ||
      options.authorities.size() > kMostText) {
    return Error{Code::invalid, 0, "TLS: certificates and keys have at most 4 MiB of PEM text"};
  }
  ERR_clear_error();
  SSL_CTX* context = SSL_CTX_new(TLS_method());
  if (context == nullptr) {
    return refuse("OpenSSL has no memory");
  }
  std::unique_ptr<TlsContext> made(new TlsContext(context));
  if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1) {
    return refuse("this OpenSSL does not speak TLS 1.3");
  }
  if (SSL_CTX_set_ciphersuites(context, kCiphers) != 1) {
    return refuse("this OpenSSL lacks the ciphers of TLS 1.3");
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_verify_depth(context, kMaxChainDepth);
  SSL_CTX_set_max_cert_list(context, kMaxChainBytes);
  // No resumption: every connection shows its certificate. Then nothing follows the handshake.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  for (const Status& status :
       {use_certificate(context, options.certificate), use_key(context, options.key),
        use_authorities(context, options.authorities)}) {
    if (!status.ok()) {
      return status.error();
    }
  }
  return made;
}

std::string quoted_holder(const std::string& holder) {
  if (holder.empty()) {
    return "nobody";
  }
  constexpr std::size_t kMost = 200;
  std::string text = holder.substr(0, kMost);
  std::replace_if(text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return "'" + text + "'";
}

Result<std::unique_ptr<Stream>> make_stream(const TlsContext* tls, Fd socket, Side side) {
  if (tls == nullptr) {
    return std::unique_ptr<Stream>(std::make_unique<SocketStream>(std::move(socket)));
  }
  return TlsStream::create(*tls, std::move(socket), side);
}

}  // namespace reef
